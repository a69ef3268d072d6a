"""Reads a written checkpoint back and checks its content.

A cut checkpoint must have the shapes that the anatomy predicts and the values that the cut keeps. If the cut is exact,
its logits must equal those of the uncut model with the removed weights set to zero. A config with the wrong rotary
frequencies or a head that is no longer tied loads without an error; only this check finds it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from lmmpress.axes.cut import Cut, Kept
from lmmpress.errors import UserError
from lmmpress.files.allow_list import choose, lay_out
from lmmpress.files.own_types import MODELING, has_own_type, modeling_code
from lmmpress.host.memory import available_memory
from lmmpress.host.processes import environment
from lmmpress.lmm import reload
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.checkpoint import load_model, name_in_model, read_checkpoint
from lmmpress.lmm.families.registry import family_of
from lmmpress.lmm.probe_inputs import Tensors, probe_inputs, probe_logits
from lmmpress.lmm.tensor_cut import TensorCut, compose, masked, shapes_after
from lmmpress.lmm.weights import WeightFile, weight_files

_SHARE_OF_MEMORY = 0.5


def verify_cut(source: Path, anatomy: Anatomy, cuts: list[Cut], target: Path) -> Anatomy:
    """Check that `target` is what the cuts make of `source`, and return its anatomy; `anatomy` is that of `source`.

    Shapes and every kept value are compared on disk. If the cuts are exact and the models fit into memory, their logits
    are compared too. Raises UserError if anything differs.
    """
    kept = compose(anatomy, cuts)
    after = read_checkpoint(target)
    if after.shapes != shapes_after(anatomy, kept):
        raise _wrong(target, "the shapes of its tensors do not follow from the cut")
    _compare_values(source, anatomy, kept, target, after)
    if _fits(anatomy, after) and _exact(anatomy, cuts):
        expected = _exact_values(source, anatomy, kept)
        uncut = load_model(source)
        uncut.load_state_dict(masked(anatomy, kept, uncut.state_dict()))
        inputs = probe_inputs(uncut)
        masked_logits = probe_logits(uncut, inputs)
        del uncut
        model = load_model(target)
        ties = {alias: expected[name] for alias, name in after.ties.items()}
        model.load_state_dict(expected | ties)  # the values before rounding to the stored precision
        _compare(target, probe_logits(model, inputs), masked_logits)
    return after


def verify_saved(model: torch.nn.Module, target: Path) -> None:
    """Raise UserError unless the checkpoint `target` gives the same logits as `model`, which was saved to it.

    Rounds the model's parameters in place to the precision in which they are stored.
    """
    stored = {name: file.dtype(name) for file in map(WeightFile, weight_files(target)) for name in file}
    config = read_checkpoint(target).config
    dtypes = {name_in_model(config, name): dtype for name, dtype in stored.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.to(dtypes.get(name, parameter.dtype)))
    model = model.float().cpu().eval()
    inputs = probe_inputs(model)
    _compare(target, probe_logits(load_model(target), inputs), probe_logits(model, inputs))


def verify_for_users(checkpoint: Path) -> None:
    """Raise UserError unless a new process with plain transformers loads the checkpoint and computes the same logits.

    That process sees only the files of the checkpoint. If the checkpoint has one of our own model types, the trusted
    code is this library's own copy.
    """
    anatomy = read_checkpoint(checkpoint)
    files = choose(checkpoint)
    if MODELING in files.rewritten:
        raise _wrong(checkpoint, f"its {MODELING} is not this library's")
    if not files.are_clean:
        raise _wrong(checkpoint, f"it holds more than a checkpoint needs: {', '.join(files.left)}")
    if not _fits(anatomy, anatomy):
        return
    model = load_model(checkpoint)
    inputs = probe_inputs(model)
    expected = inputs | {"logits": probe_logits(model, inputs)}
    needs_code = has_own_type(anatomy.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkpoint").mkdir()
        lay_out(files, folder / "checkpoint", link=True)
        if needs_code:
            (folder / "checkpoint" / MODELING).unlink()
            (folder / "checkpoint" / MODELING).write_bytes(modeling_code())
        save_file({name: value.contiguous() for name, value in expected.items()}, folder / "expected.safetensors")
        command = [sys.executable, "-P", reload.__file__, str(folder / "checkpoint")]
        command += [str(folder / "expected.safetensors"), family_of(anatomy.config).auto_class]
        command += ["--trust"] if needs_code else []
        offline = environment(HF_HUB_OFFLINE="1", HF_MODULES_CACHE=str(folder / "modules"))
        process = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=offline, cwd=folder, check=False
        )
    if process.returncode:
        last = [line for line in process.stderr.splitlines() if line.strip()][-1:]
        raise _wrong(checkpoint, "".join(last) or f"the process that loaded it exited with {process.returncode}")


def _exact(anatomy: Anatomy, cuts: list[Cut]) -> bool:
    """Whether all cuts are exact, so that the cut model must compute the same as the masked model."""
    for cut in cuts:
        axis = anatomy.towers[cut.tower].axes[cut.axis]
        if axis.exactness == "approximate" or not axis.maskable:
            return False
    return True


def _fits(*anatomies: Anatomy) -> bool:
    """Whether these models fit into memory at the same time, in float32 and each with a copy of its weights."""
    needed = sum(2 * 4 * anatomy.parameters for anatomy in anatomies)
    return needed < _SHARE_OF_MEMORY * available_memory()


def _compare_values(source: Path, anatomy: Anatomy, kept: Kept, target: Path, after: Anatomy) -> None:
    """Raise UserError unless every tensor of the cut checkpoint holds what the cut keeps; compares tensor by tensor."""
    written = {
        name_in_model(after.config, stored): (file, stored)
        for file in map(WeightFile, weight_files(target))
        for stored in file
    }
    plan = TensorCut(anatomy, kept)
    for file in map(WeightFile, weight_files(source)):
        for stored in file:
            name = name_in_model(anatomy.config, stored)
            owner = anatomy.ties.get(name, name)
            if owner not in anatomy.shapes or (renamed := plan.name(owner)) is None:
                continue
            new = renamed if owner == name else name
            if new not in written or not torch.equal(
                plan.values(owner, file.tensor(stored)), written[new][0].tensor(written[new][1])
            ):
                raise _wrong(target, f"{new} does not hold what the cut keeps")


def _exact_values(source: Path, anatomy: Anatomy, kept: Kept) -> Tensors:
    """The values of the cut model by their names in the model, computed in float32 from those of `source`."""
    plan = TensorCut(anatomy, kept)
    values: Tensors = {}
    for file in map(WeightFile, weight_files(source)):
        for stored in file:
            name = name_in_model(anatomy.config, stored)
            owner = anatomy.ties.get(name, name)
            if owner in anatomy.shapes and (renamed := plan.name(owner)) is not None:
                values[renamed] = plan.values(owner, file.tensor(stored).float())
    return values


def _compare(checkpoint: Path, computed: torch.Tensor, expected: torch.Tensor) -> None:
    error = float((computed - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not error <= reload.TOLERANCE:
        raise _wrong(checkpoint, f"its logits differ by {error:.1e} of the largest logit")


def _wrong(checkpoint: Path, what: str) -> UserError:
    return UserError(f"{checkpoint} was read back after writing and is wrong: {what}; it is not kept")
