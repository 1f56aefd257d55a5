"""What is monitored is checked before training."""

import pytest
from resumed_runs import Keeps, train

from cvkit.callbacks import Checkpoint
from cvkit.errors import UnknownNameError


def test_a_monitor_that_is_never_logged_is_refused_before_training(tmp_path):
    batches = Keeps("on_batch_start", lambda state, calls: pytest.fail("trained"))
    with pytest.raises(UnknownNameError, match="did you mean 'val_accuracy'") as caught:
        train(tmp_path, batches, checkpoint=Checkpoint(tmp_path, monitor="val_acuracy"))
    assert str(caught.value).startswith("unknown logged value for monitor 'val_acuracy'\n")
