"""Loading tokenisers and models, with errors that say what to do, and hashes of what was loaded."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from finetune.application.config import ProjectConfig
from finetune.domain.errors import FinetuneError, IntegrityError, InvalidInput
from finetune.domain.prompts import DECISION_HEAD

ResolveModel = Callable[[str], str]
WEIGHT_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".py")


def choose_device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def choose_precision(requested: bool | str) -> str:
    """Return ``bf16`` or ``fp32``.

    ``auto`` takes bf16 on accelerators that compute in it.  On CPUs it takes float32: bf16 autocast
    without AMX is slower by more than ten times.
    """
    if requested == "auto":
        cuda = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bf16" if cuda else "fp32"
    if requested and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise InvalidInput(
            "this GPU does not compute in bf16",
            where="training.bf16",
            seen=True,
            remedy="set it to auto or false",
        )
    return "bf16" if requested else "fp32"


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back bars that are not ours, and a deprecation between peft 0.21 and transformers 5."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def explain_failure(error: Exception, model_id: str, source: str, where: str = "model_id") -> FinetuneError:
    """Turn what transformers raised on loading into an error that says what to do."""
    local = Path(source).is_dir()
    reason = str(error).strip().splitlines()
    first = reason[0] if reason else type(error).__name__
    remedy = (
        "the folder must hold config.json, safetensors weights and a tokeniser; copy it again if damaged"
        if local
        else "check the spelling and the connection, or download the model and give its folder as model_id"
    )
    kind = IntegrityError if local else InvalidInput
    return kind(f"the model could not be loaded: {first}", where=where, seen=model_id, remedy=remedy)


def load_tokenizer(config: ProjectConfig, resolve: ResolveModel) -> PreTrainedTokenizerBase:
    """Load the tokeniser of a configuration.

    Raises
    ------
    InvalidInput
        The name is unknown, or needs remote code that is not allowed.
    IntegrityError
        A local folder is damaged.
    """
    name = config.tokenizer_id or config.model_id
    source = resolve(name)
    # The revision names a commit of the model's repository, not of another one.
    revision = config.revision if config.tokenizer_id is None else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise explain_failure(error, name, source) from error
    # Without tokeniser files transformers builds an empty one.
    if not tokenizer(DECISION_HEAD, add_special_tokens=False)["input_ids"]:
        raise IntegrityError(
            "the folder holds no tokeniser", where="tokenizer_id", seen=name, remedy="add tokenizer.json"
        )
    return tokenizer


def load_base(config: ProjectConfig, resolve: ResolveModel, precision: str) -> PreTrainedModel:
    """Load the base model, in evaluation mode, on the CPU or accelerator chosen for this process.

    Only safetensors are read.

    Raises
    ------
    InvalidInput
        The name is unknown, or needs remote code that is not allowed.
    IntegrityError
        A local folder is damaged.
    """
    source = resolve(config.model_id)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                source,
                revision=config.revision,
                trust_remote_code=config.trust_remote_code,
                dtype=dtype,
                use_safetensors=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise explain_failure(error, config.model_id, source) from error
    model.eval()
    return model


def base_hash(model: PreTrainedModel, model_id: str, resolve: ResolveModel, where: str = "model_id") -> str:
    """Identify the base weights: the hub's commit, or the SHA-256 of a local folder's files."""
    source = Path(resolve(model_id))
    if source.is_dir():
        return folder_hash(source)
    commit = getattr(model.config, "_commit_hash", None)
    if not commit:
        raise IntegrityError(
            "the version of the base model cannot be determined",
            where=where,
            seen=model_id,
            remedy="give revision: <commit>, or a local folder as model_id",
        )
    return str(commit)


def folder_hash(folder: Path) -> str:
    """Return the SHA-256 (hex) over names and contents of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in WEIGHT_SUFFIXES):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def accepts(model: PreTrainedModel, argument: str) -> bool:
    """Whether the model's forward takes an argument (remote-code models differ)."""
    target: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    return argument in inspect.signature(target.forward).parameters
