"""Files: checkpoints, plain weights, the lock of a run's directory; nothing of training is known here."""
