"""The Trainer subclass: answer-only loss on the logits that carry it, evaluation by label scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer

from finetune.adapters.hf.batches import IGNORED, EncodedRows
from finetune.adapters.hf.loading import accepts

Evaluation = Callable[[], Mapping[str, float]]


class AnswerTrainer(Trainer):
    """transformers' Trainer with three things replaced: loss, evaluation and what a checkpoint holds.

    Parameters
    ----------
    evaluation
        Called at each evaluation; returns the metrics, ``log_loss`` among them.
    order
        The sampler of the training rows.
    **arguments
        As for :class:`transformers.Trainer`.
    """

    def __init__(self, *, evaluation: Evaluation, order: Sampler[int], **arguments: Any) -> None:
        # The Trainer asks for evaluation rows; ours are inside `evaluation`.
        super().__init__(eval_dataset=EncodedRows(()), **arguments)
        self._evaluation = evaluation
        self._order = order
        # The loss is a sum over all answer tokens of the accumulated batch divided by their number.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        self._keeps_logits = accepts(self.model, "logits_to_keep")
        self._takes_positions = accepts(self.model, "position_ids")

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._order

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy of the answer tokens, per answer token of the whole accumulated batch."""
        labels = inputs["labels"]
        batch = {k: v for k, v in inputs.items() if k != "labels"}
        if not self._takes_positions:
            del batch["position_ids"]
        if self._keeps_logits:
            # Rows end together, so the longest answer says how many positions carry a loss.
            answered = (labels != IGNORED).any(dim=0)
            keep = labels.shape[1] - int(answered.int().argmax())
            batch["logits_to_keep"] = keep + 1
            labels = labels[:, -keep:]
        else:
            labels = labels[:, 1:]
        outputs = model(**batch, use_cache=False)
        logits = outputs.logits[:, :-1].float()
        total = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
        )
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        loss = total / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # Gradients are averaged over processes, while the count is that of all of them together.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate by label scores; no vocabulary logits are kept."""
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._evaluation().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

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
