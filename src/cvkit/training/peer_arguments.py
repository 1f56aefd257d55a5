"""Answers to wrong calls of ``fit`` and its like: what other libraries call an argument, and what says the same here."""

from __future__ import annotations

from cvkit.calls import answered

__all__ = ["answered_calls"]

_CALLED = {
    "train": "train_loader train_dataloader train_dataloaders trainloader train_dl train_data train_ds train_dataset "
    "dataloader loader data dataset x",
    "val": "val_loader valid_loader valid_dl val_dl val_dataloader val_dataloaders valid validation validation_data valid_data "
    "val_data val_ds val_dataset eval_dataset eval_loader test_loader test_data",
    "data": "loader dataloader data_loader dataset test_loader test_data val_loader val",
    "epochs": "epoch num_epochs n_epochs n_epoch nb_epoch nepochs max_epochs max_epoch total_epochs num_train_epochs",
    "lr": "learning_rate lr_max base_lr init_lr eta",
    "loss": "criterion loss_fn loss_func loss_function objective",
    "optimizer": "opt optim optimiser opt_func optimizer_class",
    "schedule": "scheduler lr_scheduler lr_schedule sched",
    "metrics": "metric metric_fn compute_metrics eval_metrics",
    "callbacks": "callback cbs",
    "step": "training_step train_step step_fn step_function",
    "device": "devices accelerator gpus gpu",
    "precision": "amp mixed_precision fp16 bf16 use_amp dtype",
    "compile": "torch_compile jit_compile",
    "accumulate": "accumulate_grad_batches gradient_accumulation_steps accumulation_steps accum_steps accum_iter",
    "clip_norm": "gradient_clip_val max_grad_norm grad_clip clip_grad clip_grad_norm grad_clip_norm clip clipnorm max_norm",
    "seed": "random_seed random_state manual_seed",
    "resume": "resume_from resume_from_checkpoint ckpt_path checkpoint_path resume_training initial_epoch",
    "progress": "verbose progress_bar enable_progress_bar",
    "preflight": "sanity_check num_sanity_val_steps",
    "low": "start_lr min_lr lr_min",
    "high": "end_lr max_lr",
    "steps": "num_iter num_training iterations num_steps max_steps",
}

_LOADER = "it belongs to the loader: cvkit.data.Loader(dataset, batch_size=64, shuffle=True, workers=4)"
_OPTIMIZER = "it belongs to the optimizer: optimizer=lambda p: torch.optim.{}"
_STOPPING = 'pass a callback: callbacks=[EarlyStopping("val_loss", patience=5)]'
_SAVING = 'pass a callback: callbacks=[Checkpoint("runs/a")]'
_BOARD = 'pass a callback: callbacks=[TensorBoard("runs/a")]'

_ELSEWHERE = {
    "batch_size": _LOADER,
    "shuffle": _LOADER,
    "num_workers": _LOADER,
    "workers": _LOADER,
    "weight_decay": _OPTIMIZER.format("AdamW(p, lr=1e-3, weight_decay=0.05)"),
    "wd": _OPTIMIZER.format("AdamW(p, lr=1e-3, weight_decay=0.05)"),
    "betas": _OPTIMIZER.format("AdamW(p, lr=1e-3, betas=(0.9, 0.99))"),
    "momentum": 'pass optimizer="momentum" (0.9), or '
    + "optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.95)",
    "class_weight": "it belongs to the loss: loss=nn.CrossEntropyLoss(weight=…)",
    "class_weights": "it belongs to the loss: loss=nn.CrossEntropyLoss(weight=…)",
    "label_smoothing": "it belongs to the loss: loss=nn.CrossEntropyLoss(label_smoothing=0.1)",
    "validation_split": "split the dataset: from_folder(…, val=0.2), or cvkit.data.split(dataset, 0.2)",
    "y": "a loader gives the targets with the inputs: train=DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)",
    "early_stopping": _STOPPING,
    "patience": _STOPPING,
    "checkpoint": _SAVING,
    "save_dir": _SAVING,
    "output_dir": _SAVING,
    "logger": _BOARD,
    "log_dir": _BOARD,
    "ema": "pass a callback: callbacks=[EMA()]",
}

answered_calls = answered(renamed=_CALLED, elsewhere=_ELSEWHERE, needed={"epochs": "epochs=10"})
"""The decorator of ``fit``, ``evaluate``, ``preflight`` and ``find_lr``."""
