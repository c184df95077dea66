"""Model files and bundles that mean harm: each is refused as one, in seconds, and in no more memory than it takes."""

from __future__ import annotations

import re

import pytest
from hostile_files import BUNDLES, CHECKPOINTS, SAFETENSORS, YAML_BUNDLES
from hostile_outcomes import Outcomes, assert_refused, outcomes

OBJECTS = "holds pickled Python objects.*state_dict"
EXPANDED = "expanded tensor, larger than its values"
VALUES = "damaged: it describes other values than it holds"
DAMAGED = "damaged, or no torch file"
NO_STATE = "holds no state dict"
UNFIT = "the weights do not fit"
LARGE = "would be a network far larger than its weights"

SAID = {
    "checkpoints": {
        "expanded": EXPANDED,
        "expanded in one direction": EXPANDED,
        "overlapping": EXPANDED,
        "overlapping by halves": EXPANDED,
        "beyond its values": "a tensor reaches beyond its values",
        "beyond by offset": "a tensor reaches beyond its values",
        "beyond by stride": "a tensor reaches beyond its values",
        "huge storage": VALUES,
        "huge storage, small tensor": VALUES,
        "small storage": VALUES,
        "no such values": VALUES,
        "values in two ways": "describes the same values in two ways",
        "one storage, many names": "tensors are larger than all that it holds",
        "one place, many members": "tensors are larger than all that it holds",
        "deflated": "a compressed or encrypted archive",
        "bzip2": "a compressed or encrypted archive",
        "lzma": "a compressed or encrypted archive",
        "says it is larger": "damaged: a part of it reaches beyond its end",
        "says both are larger": "damaged: a part of it reaches beyond its end",
        "says it lies elsewhere": DAMAGED,
        "encrypted": "a compressed or encrypted archive",
        "member twice": "an archive that holds a file twice",
        "two pickles": DAMAGED,
        "no pickle": DAMAGED,
        "empty archive": DAMAGED,
        "a flipped bit": "damaged: a checksum is wrong",
        "cut": DAMAGED,
        "only a beginning": DAMAGED,
        "big-endian": "a big-endian machine",
        "TorchScript": "a TorchScript archive",
        "large pickle": "more than 16777216 bytes of names and shapes",
        "sparse": "sparse tensors, where plain ones are needed",
        "quantised": "quantised tensors",
        "meta": r"empty \(meta\) tensors",
        "nested": "nested tensors",
        "wrapped": "wrapped tensors",
        "third form": "oddly typed tensors",
        "complex": "complex numbers, where real ones are needed",
        "objects": NO_STATE,
        "untyped": OBJECTS,
        "view of a view": "views of views",
        "negative size": DAMAGED,
        "negative stride": DAMAGED,
        "negative offset": DAMAGED,
        "size of text": DAMAGED,
        "size of truth": DAMAGED,
        "more sizes than strides": DAMAGED,
        "a thousand dimensions": DAMAGED,
        "product overflows": EXPANDED,
        "tensor of a text": DAMAGED,
        "code": OBJECTS,
        "code, old form": OBJECTS,
        "code, plain pickle": OBJECTS,
        "code by build": NO_STATE,
        "code by torch": OBJECTS,
        "code by instance": OBJECTS,
        "code by extension": OBJECTS,
        "a module": OBJECTS,
        "memo far away": UNFIT,
        "names nothing": DAMAGED,
        "pops too much": DAMAGED,
        "no mark": DAMAGED,
        "a mark kept": DAMAGED,
        "unending": DAMAGED,
        "costly key": NO_STATE,
        "costly name": DAMAGED,
        "costly kind": "of a type that weights don't have",
        "deep key": NO_STATE,
        "colliding keys": NO_STATE,
        "deep rebuilding": DAMAGED,
        "huge number": UNFIT,
        "text with a lying length": DAMAGED,
        "holds itself": NO_STATE,
        "a list": "holds a list",
        "a tensor": "holds a tensor",
        "nothing in it": NO_STATE,
        "texts": "found keys epoch",
        "controls in its keys": "found keys x{40}, \ufffd",
        "old form, lying length": VALUES,
        "old form, lying count": VALUES,
        "old form, expanded": EXPANDED,
        "old form, cut": VALUES,
        "old form, no keys": VALUES,
        "old form, other keys": VALUES,
        "old form, one key twice": VALUES,
        "mean not a number": "has a mean that can't be one",
        "mean of 400 digits": "has a mean that can't be one",
        "std of nothing": "has a std that can't be one",
        "a million means": "has a mean that can't be one",
        "names python code": "names Python code as its architecture, which no file can",
        "long architecture": "architecture.s name .* is no short text",
        "steering architecture": "architecture.s name .* is no short text",
        "huge architecture": UNFIT,
        "huge network": UNFIT,
        "many classes": "1000000 outputs; expected 1 to 65536",
        "no classes": "0 outputs; expected 1 to 65536",
        "a number for a layer": UNFIT,
        "wrapped many times": UNFIT,
        "wrapper alone": UNFIT,
        "steering names": "1 unexpected: \ufffd",
        "surrogate names": "1 unexpected: \ufffd",
        "no torch file": DAMAGED,
        "no file at all": DAMAGED,
        "a pickle's first byte": DAMAGED,
        "an archive's first bytes": DAMAGED,
    },
    "safetensors": dict.fromkeys(SAFETENSORS, "is no readable safetensors file")
    | {
        "a million dimensions": UNFIT,
        "no tensors": UNFIT,
        "eight-bit floats": "w is of type torch.float8_e4m3fn; expected real numbers",
        "complex": "(w is of type torch.complex64; expected real numbers|no readable safetensors file)",
    },
    "bundles": {
        "dimensions of text": "argument spatial_dims is 'abc', expected 2 or 3",
        "a billion dimensions": "argument spatial_dims is 1000000000",
        "dimensions of nothing": "argument spatial_dims is None, expected 2 or 3",
        "dimensions of a list": r"argument spatial_dims is \[2\], expected 2 or 3",
        "dimensions of truth": "argument spatial_dims is True, expected 2 or 3",
        "two and a half dimensions": "argument spatial_dims is 2.5, expected 2 or 3",
        "dimensions of 400 digits": "argument spatial_dims is a number of more than 64 bits",
        "no dimensions": "argument spatial_dims is 0, expected 2 or 3",
        "wide": "argument init_features is 200000; numbers to 32768",
        "wide within bounds": LARGE,
        "growing": LARGE,
        "negative growth": "can't be built with .*negative dimension",
        "growth of text": "can't be built with .*growth_rate",
        "growth of nothing": UNFIT,
        "deep": "argument block_config adds up to more than 65536",
        "deep within bounds": LARGE,
        "deep in sum": "argument block_config adds up to more than 65536",
        "many blocks": "argument block_config adds up to more than 65536",
        "many blocks within bounds": UNFIT,
        "deeply nested": "argument block_config.* is nested more than 8 deep",
        "a thousand arguments": "argument a102[0-9] is one of more than 1024 values",
        "unknown argument": "can't be built with .*'surprise'",
        "argument that steers": "can't be built with",
        "text that steers": "argument norm is a text of more than 256 characters, or with control characters",
        "surrogate": "argument norm is a text",
        "long text": "argument norm is a text",
        "long key": "argument norm has a key that is no short text",
        "infinite": "Infinity is no finite number",
        "1e999": "argument dropout_prob is inf",
        "classes of truth": "can't be built with|outputs",
        "negative classes": "can't be built with|outputs",
        "key twice": "'spatial_dims' is given twice",
        "deep JSON": "it is nested too deeply",
        "too long": "it is larger than 1000000 bytes",
        "no network": "no network_def found",
        "a list": "no network_def found",
        "network of text": "no network_def found",
        "target of a list": "names no network",
        "target of code": "names 'os.mkdir'; expected one of monai.networks.nets or timm",
        "target that steers": "names '\ufffd",
        "timm, wide": "can't be built with",
        "timm, deep": LARGE,
        "timm, deep transformer": LARGE,
        "timm, large image": LARGE,
        "timm, large windows": LARGE,
        "timm, no name": "has no model",
        "timm, long name": "has no model",
        "transformer, deep": LARGE,
        "transformer, large image": LARGE,
        "encoder of huge images": f"can't be built with|{LARGE}",
        "wide layers": UNFIT,
        "residual, deep": LARGE,
    },
    "yaml bundles": {
        "alias bomb": "inference.yaml of the bundle can't be read: line 6: an anchor",
        "self-reference": "line 1: an anchor",
        "merge": "line 1: a merge key",
        "python": "line 1: a tag",
        "deep": "line 1: (exceeded maximum nesting depth|more than 64 levels)",
        "date": "line 1: '2020-13-45' reads as a date",
        "dimensions of text": "argument spatial_dims is 'abc'",
    },
}
MAKERS = {
    "checkpoints": CHECKPOINTS,
    "safetensors": SAFETENSORS,
    "bundles": BUNDLES,
    "yaml bundles": YAML_BUNDLES,
}
CASES = [(table, name) for table, makers in MAKERS.items() for name in makers]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = outcomes(*MAKERS)
    assert not list(folder.iterdir()), "nothing in these files ran"
    return found


@pytest.mark.parametrize(("table", "name"), CASES)
def test_a_hostile_model_is_refused_in_seconds_and_takes_no_memory(read: Outcomes, table: str, name: str) -> None:
    outcome = read[table, name]
    assert_refused(outcome, "Error", seconds=10, mebibytes=150)
    assert outcome["kind"] in ("ModelError", "OversizeError"), outcome
    assert re.search(SAID[table][name], outcome["message"], re.DOTALL), outcome["message"][:500]
