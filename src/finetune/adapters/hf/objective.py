"""The Trainer subclass: one loss for all forwards of a step, evaluation by label scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from transformers import Trainer, TrainerState

from finetune.adapters.hf.batches import Batching, LengthGroupedSampler, Step, StepCollator
from finetune.adapters.hf.label_loss import LabelLoss

Evaluation = Callable[[], Mapping[str, float]]
# How peft names what it trains whole.
_WHOLE = "modules_to_save"
_TOKENS = ("computed_tokens", "padded_tokens")


class AnswerTrainer(Trainer):
    """transformers' Trainer with four things replaced: rows, loss, evaluation and what a checkpoint holds.

    The Trainer counts whole steps: ``gradient_accumulation_steps`` is 1, ``per_device_train_batch_size`` the
    rows of a step on one device, and :meth:`training_step` runs them in as many forwards as they are divided
    into.

    Parameters
    ----------
    evaluation
        Called at each evaluation; returns the metrics, ``log_loss`` among them.
    order
        The sampler of the training rows; its batches are the steps of all processes together.
    batching
        How the rows of a step are run.
    forward_rows
        Rows of one padded forward, with which the computed tokens are compared.
    labels, weight
        An objective over the labels that padded forwards would run apart, and its share of the loss.
    new_rate
        Learning rate of modules that are trained whole, a new head, relative to that of the adapter.
    **arguments
        As for :class:`transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        evaluation: Evaluation,
        order: LengthGroupedSampler,
        batching: Batching,
        forward_rows: int,
        labels: LabelLoss | None = None,
        weight: float = 0.0,
        new_rate: float = 1.0,
        **arguments: Any,
    ) -> None:
        # The Trainer asks for evaluation rows; ours are inside `evaluation`.
        super().__init__(eval_dataset=(), **arguments)
        self._evaluation = evaluation
        self._order = order
        self._batching = batching
        self._weight = weight
        self._new_rate = new_rate
        self._collate = StepCollator(
            batching, forward_rows, self.args.process_index, self.args.world_size, labels
        )
        self._new_tokens = dict.fromkeys(_TOKENS, 0)

    def get_train_dataloader(self) -> DataLoaderShard:
        """Return a loader of steps, not sharded: the collator takes this process's share."""
        return DataLoaderShard(
            self.train_dataset,
            batch_size=self._order.batch_size,
            sampler=self._order,
            collate_fn=self._collate,
        )

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser, with new modules in groups of their own."""
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self._new_rate != 1.0:
            new = {id(weight) for name, weight in self.model.named_parameters() if _WHOLE in name}
            for group in list(optimizer.param_groups):
                moved = [weight for weight in group["params"] if id(weight) in new]
                if moved:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in new]
                    rate = group["lr"] * self._new_rate
                    optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer

    def training_step(
        self, model: torch.nn.Module, inputs: Step, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Run a step forward and backward; return its loss: per answer token, and per row of the objective.

        Sums over the answer tokens and over the rows of all forwards of all processes are divided by their
        numbers, so that neither the division into forwards nor the number of processes changes the gradient.
        """
        model.train()
        # Gradients are averaged over processes, while the counts are those of all of them together.
        processes = self.accelerator.num_processes
        per_answer = (1.0 - self._weight) * processes / inputs["answers"]
        per_row = self._weight * processes / inputs["rows"]
        total = torch.zeros((), device=self.args.device)
        last = inputs["batches"][-1]
        for batch in inputs["batches"]:
            # Processes may have different numbers of forwards; they exchange gradients once, in the last.
            with nullcontext() if batch is last else self.accelerator.no_sync(model):
                answers, labels = self._batching.loss(model, batch)
                loss = answers * per_answer
                if labels is not None:
                    loss = loss + labels * per_row
                self.accelerator.backward(loss)
            total += loss.detach()
            self._new_tokens["computed_tokens"] += batch.tokens
        self._new_tokens["padded_tokens"] += inputs["padded_tokens"]
        return total

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate by label scores; no vocabulary logits are kept."""
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._evaluation().items()}
        # With the log the token counts get into the checkpoint that follows.
        self.log({**metrics, **self._count_tokens()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _count_tokens(self) -> dict[str, int]:
        """Return the tokens of all processes since training began."""
        mine = torch.tensor([self._new_tokens[name] for name in _TOKENS], device=self.args.device)
        added = self.accelerator.reduce(mine, reduction="sum").tolist()
        self._new_tokens = dict.fromkeys(_TOKENS, 0)
        before = counted_tokens(self.state)
        return {name: before[name] + number for name, number in zip(_TOKENS, added, strict=True)}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # The adapter and nothing else: the base's tokeniser is not ours to copy, and the Trainer's
        # training_args.bin is a pickle that nobody may have to trust.
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(
            str(folder),
            state_dict=state_dict,
            is_main_process=self.args.should_save,
            save_embedding_layers=False,
        )


def counted_tokens(state: TrainerState) -> dict[str, int]:
    """Return ``computed_tokens`` and ``padded_tokens`` up to the last evaluation; 0 before the first."""
    entry = next((entry for entry in reversed(state.log_history) if _TOKENS[0] in entry), {})
    return {name: int(entry.get(name, 0)) for name in _TOKENS}
