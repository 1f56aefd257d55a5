"""What a dataset looks like before anything is trained on it: counts, suspicious files, duplicates and leaks."""
