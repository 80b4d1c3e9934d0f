"""The values that compiled programs depend on: all of them, and no other."""

import dataclasses

import jax
import pytest

from aslp_jax.methods import METHODS
from aslp_jax.trainer import options
from aslp_jax.trainer.options import FIELDS, Config
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.programs import compile_programs
from aslp_jax.trainer.spec import Images, make_method, program_spec

IMAGES = Images((8, 8, 3), 10, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), True)

WITHOUT_EFFECT = {
    # They say which images, and where these come from; see `Images`.
    "cache_dir",
    "data",
    "data_dir",
    "dataset",
    "image_size",
    "manual_dir",
    "stream",
    # The loop around the programs reads them.
    "checkpoint_seconds",
    "eval_samples",
    "finetune",
    "patience",
    "seed",
    "select_by",
    # They come in as the mesh and the number of images in a pass.
    "devices",
    "micro_batch",
    # It counts where there is a mesh.
    "shard",
}

MODEL = {"model", "model_args", "model_sha256"}
"""Options that say which network; see the test of a network of one's own."""


def spec(config, **changes):
    chosen = {"steps": 5, "platform": "cpu", "micro_batch": 32, "mesh": None}
    return program_spec(config, IMAGES, **{**chosen, **changes})


def other(name, config):
    """A valid value of an option that is not its present one."""
    field, present = FIELDS[name], getattr(config, name)
    if name == "rescale":
        choices = options.RESCALES[config.method]
    else:
        choices = field.metadata.get("choices", ())
    if choices:
        return next(choice for choice in choices if choice != present)
    if isinstance(present, bool):
        return not present
    if "str" in str(field.type):
        return "elsewhere"
    if "int" in str(field.type):
        return 7 if present is None else present + 1
    return 0.5 if not present else present / 2


@pytest.mark.parametrize("method", METHODS)
def test_an_option_changes_the_specification_or_is_listed(method):
    plain = resolve(None, {"method": method, "keep_fraction": 0.2})
    for name in FIELDS.keys() - {"method", "epochs", *MODEL}:
        if not options.knows(method, name) or (
            name == "rescale" and (len(options.RESCALES[method]) == 1)
        ):
            continue
        changed = dataclasses.replace(plain, **{name: other(name, plain)})
        assert changed != plain
        same = spec(changed) == spec(plain)
        assert same == (name in WITHOUT_EFFECT), name


def test_epochs_matter_where_the_learning_rates_follow_them():
    for schedule in ("constant", "cosine"):
        few, many = (Config(schedule=schedule, epochs=epochs) for epochs in (3, 4))
        assert (spec(few) == spec(many)) == (schedule == "constant")
    few, many = (Config(temperature_end=0.5, epochs=epochs) for epochs in (3, 4))
    assert spec(few) != spec(many)


def test_each_fact_about_images_and_devices_counts():
    plain = Config(standardise=True)
    for name, value in (
        ("shape", (4, 4, 3)),
        ("classes", 7),
        ("mean", (0.1, 0.1, 0.1)),
        ("std", (0.1, 0.1, 0.1)),
        ("flip", False),
        ("cropped", True),
    ):
        images = IMAGES._replace(**{name: value})
        given = {"steps": 5, "platform": "cpu", "micro_batch": 32, "mesh": None}
        assert program_spec(plain, images, **given) != spec(plain), name
    assert spec(plain, platform="gpu") != spec(plain, micro_batch=16) != spec(plain)
    # Steps matter where the learning rates follow them, and nowhere else.
    assert spec(plain, steps=6) == spec(plain)
    cosine = dataclasses.replace(plain, schedule="cosine")
    assert spec(cosine, steps=6) != spec(cosine)


def test_a_spread_state_counts_where_there_is_a_mesh():
    mesh = jax.make_mesh((4,), ("batch",))
    found = [spec(Config(shard=shard), mesh=mesh) for shard in ("none", "params")]
    assert [each.spread for each in found] == [False, True]


def test_a_network_of_ones_own_is_part_of_the_specification(tmp_path):
    path = tmp_path / "nets.py"

    def found(arguments, classes=3):
        path.write_text(
            "import flax.linen as nn\nclass Net(nn.Module):\n  width: int = "
            f"{classes}\n"
        )
        options = {"model": f"{path}:Net", "model_args": arguments}
        return spec(resolve(None, options))

    assert found("width=4") == found("width=4")
    assert found("width=4") != found("width=5")
    assert found("width=4") != found("width=4", classes=2)
    assert found(None) != spec(Config())


def test_seeds_share_their_programs():
    first = compile_programs(spec(Config(seed=0)))
    assert compile_programs(spec(Config(seed=1))) is first
    assert compile_programs(spec(Config(mask_lr=1.0))) is not first


def test_a_renamed_option_of_a_method_is_an_error(monkeypatch):
    config = Config()
    assert make_method(config).temperature == 1.0
    for names, error in (
        (("no_such_option",), AttributeError),  # the method asks for one
        (("batch_size",), TypeError),  # an option that the method does not take
    ):
        monkeypatch.setitem(options.METHOD_OPTIONS, "aslp", names)
        with pytest.raises(error, match=names[0]):
            make_method(config)


def test_a_network_of_ones_own_may_have_lists(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(
        "import flax.linen as nn\ndef make(): return nn.Sequential([nn.Dense(10)])\n"
    )
    config = Config(model=f"{path}:make")
    assert compile_programs(spec(config)) is compile_programs(spec(config))
