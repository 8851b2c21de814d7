"""Configuration is strict: whatever is wrong stops the run in one line that names the key and what is allowed."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from pydantic.dataclasses import dataclass

from cache.conditions import parse_joint
from configs.command.entry import main
from configs.loader import STRICT, check, dump_config, load_config
from configs.schema.corpora import CorpusConfig, DataConfig
from configs.schema.demo import DemoConfig, RandomEncodersConfig
from configs.schema.features import FeaturesConfig
from configs.schema.finetune import FinetuneConfig
from configs.schema.fusion import FusionConfig
from configs.schema.predict import PredictConfig
from configs.schema.preview import PreviewConfig
from configs.schema.studies import CompareConfig, EnrolmentConfig, ReportConfig, RobustnessConfig
from configs.schema.sweep import SweepConfig
from tests.tiny.places import ROOT

CONFIGS = ROOT / "configs"
KINDS: dict[str, type[Any]] = {
    "compare": CompareConfig,
    "enrolment": EnrolmentConfig,
    "report": ReportConfig,
    "corpus": CorpusConfig,
    "data": DataConfig,
    "demo": DemoConfig,
    "encoders": RandomEncodersConfig,
    "features": FeaturesConfig,
    "finetune": FinetuneConfig,
    "fusion": FusionConfig,
    "predict": PredictConfig,
    "preview": PreviewConfig,
    "robustness": RobustnessConfig,
}
SHIPPED = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "splits")


@dataclass(frozen=True, config=STRICT)
class Inner:
    rate: Annotated[float, Field(gt=0)] = 0.1
    steps: Annotated[int, Field(ge=1)] = 3


@dataclass(frozen=True, config=STRICT)
class Outer:
    corpus: str
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ("clean",)
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    mode: Literal["mean", "last"] = "mean"
    model: str | None = "base"
    fast: bool = False
    table: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.corpus == "nowhere":
            raise ValueError("corpus nowhere is no place")


def load(tmp_path: Path, text: str, *overrides: str) -> Outer:
    (tmp_path / "x.yaml").write_text(text)
    return load_config(Outer, tmp_path / "x.yaml", overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ValueError, match=r".") as error:
        load(tmp_path, text, *overrides)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(str(tmp_path), "")


def test_defaults_and_nesting(tmp_path: Path) -> None:
    config = load(tmp_path, "corpus: a.csv\ninner: {steps: 5}\nnames: [x, y]\nmodel: null\n")
    assert config == Outer("a.csv", Inner(0.1, 5), ("x", "y"), model=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("corpus: a\ncorpsu: b", "/x.yaml: unknown key corpsu; did you mean corpus?; allowed: corpus, inner, names,"),
        ("corpus: a\ninner: {stepz: 1}", "unknown key inner.stepz; did you mean steps?; allowed: rate, steps"),
        ("corpus: a\nzzz: 1", "unknown key zzz; allowed: corpus,"),
        ("inner: {rate: 1.0}", "corpus is required and has no default"),
        ("", "corpus is required and has no default"),
        ("corpus: 5", "corpus: Input should be a valid string, got 5"),
        ("corpus: null", "corpus: Input should be a valid string, got None"),
        ("corpus: a\nsize: '224'", "size: Input should be a valid integer, got '224'"),
        ("corpus: a\nsize: 224.0", "size: "),
        ("corpus: a\nsize: true", "size: Input should be a valid integer, got True"),
        ("corpus: a\nsize: 8", "size: Input should be greater than or equal to 16, got 8"),
        ("corpus: a\nsize: 2048", "size: Input should be less than or equal to 1024, got 2048"),
        ("corpus: a\nfast: 1", "fast: Input should be a valid boolean, got 1"),
        ("corpus: a\nmode: median", "mode: Input should be 'mean' or 'last', got 'median'"),
        ("corpus: a\nnames: clean", "names: Input should be a valid array, got 'clean'"),
        ("corpus: a\nnames: [x, 3]", "names.1: Input should be a valid string, got 3"),
        ("corpus: a\ninner: {rate: 0}", "inner.rate: Input should be greater than 0, got 0"),
        ("corpus: a\ninner: {rate: .nan}", "inner.rate: Input should be greater than 0, got nan"),
        ("corpus: a\ninner: 5", "inner: Input should be an object, got 5"),
        ("corpus: a\ninner: null", "inner: Input should be an object, got None"),
        ("corpus: nowhere", "corpus nowhere is no place"),
        ("corpus: 2024-01-01", "not JSON serializable; quote the value if it is text"),
        ("corpus: &x [*x]", "Circular reference"),
        ("corpus: [a", "/x.yaml is not valid YAML: "),
        ("corpus: a\ncorpus: b", "/x.yaml is not valid YAML: key 'corpus' stands twice"),
        ("corpus: a\ninner: {steps: 1, steps: 2}", "key 'steps' stands twice"),
        ("corpus: !!python/name:os.system", "/x.yaml is not valid YAML: "),
        ("corpus: 2024-13-01", "/x.yaml is not valid YAML: month"),
        ("- corpus", "/x.yaml must hold keys and values, not a list"),
        ("corpus", "/x.yaml must hold keys and values, not a str"),
        ("5: a\ncorpus: b", "unknown key 5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("inner.steps=7", Outer("a", Inner(steps=7))),
        ("inner.rate=1e-4", Outer("a", Inner(rate=1e-4))),
        ("inner.rate=2", Outer("a", Inner(rate=2.0))),
        ("names=[x, y]", Outer("a", names=("x", "y"))),
        ("names=[]", Outer("a", names=())),
        ("model=null", Outer("a", model=None)),
        ("model=", Outer("a", model=None)),
        ("model='null'", Outer("a", model="null")),
        ("corpus=a=b.csv", Outer("a=b.csv")),
        ("corpus='5'", Outer("5")),
        # YAML takes these for a comment or a mapping: another folder was read without a word.
        ("corpus=data/RAVDESS #2/metadata.csv", Outer("data/RAVDESS #2/metadata.csv")),
        ("corpus=data/Interview: happy/m.csv", Outer("data/Interview: happy/m.csv")),
        ("corpus=#1 a  b.csv", Outer("#1 a  b.csv")),
        ("corpus=%d @x `y`", Outer("%d @x `y`")),
        ("names=['take #3', 'Interview: happy']", Outer("a", names=("take #3", "Interview: happy"))),
        ("table.new=x", Outer("a", table={"new": "x"})),
        ("inner={steps: 9}", Outer("a", Inner(steps=9))),
    ],
)
def test_overrides(tmp_path: Path, override: str, expected: Outer) -> None:
    assert load(tmp_path, "corpus: a", override) == expected


def test_the_last_override_wins_and_siblings_stay(tmp_path: Path) -> None:
    config = load(tmp_path, "corpus: a\ninner: {rate: 0.5, steps: 2}", "inner.steps=4", "inner.steps=6")
    assert config.inner == Inner(0.5, 6)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("inner.stepz=7", "unknown key inner.stepz; did you mean steps?"),
        ("size=12", "size: Input should be greater than or equal to 16, got 12"),
        ("corpus.a=b", "corpus: Input should be a valid string"),
        ("size", "override 'size' must look like key=value or a.b=value"),
        ("=5", "override '=5' must look like key=value or a.b=value"),
        ("names=[x", "override 'names=[x' is not valid YAML"),
    ],
)
def test_overrides_go_through_the_same_check(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in refusal(tmp_path, "corpus: a", override)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("corpus: data/RAVDESS #2/metadata.csv", 1),
        ("size: 64\ncorpus: take #3.csv", 2),
        ("corpus: a\nnames: [x, y #2, z]", 2),
    ],
)
def test_a_path_that_yaml_would_cut_is_refused(tmp_path: Path, text: str, line: int) -> None:
    """A comment has a space behind its #; a folder named `RAVDESS #2` became another one, silently."""
    message = refusal(tmp_path, text)
    assert "x.yaml" in message
    if "names" not in text:
        assert f"line {line}: YAML reads only" in message
        assert "quote all of it" in message


@pytest.mark.parametrize(
    "text", ["corpus: a # a comment", "corpus: a ## loud", "#x\ncorpus: a #", 'corpus: "a" #b', "corpus: a#b"]
)
def test_comments_are_comments(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).corpus in ("a", "a#b")


@pytest.mark.parametrize("path", ["data/RAVDESS #2/m.csv", "Interview: happy.csv", " a ", "# b", "- c", "1e3", "null"])
def test_a_path_survives_its_own_configuration(tmp_path: Path, path: str) -> None:
    (tmp_path / "y.yaml").write_text(dump_config(Outer(path)))
    assert load_config(Outer, tmp_path / "y.yaml").corpus == path


def test_missing_file_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no configuration file .*x\.yaml; shipped ones: .*configs/ravdess/fusion"):
        load_config(Outer, tmp_path / "x.yaml")


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(
    ["1e4", "1e-4", "null", "yes", "12", "0x1f", "2024-01-01", "~", "a: b", "#", "1_000", "=", "<<"]
)
inners = st.builds(Inner, st.floats(1e-300, 1e300), st.integers(1, 10**12))
outers = st.builds(Outer, texts.filter(lambda t: t != "nowhere"), inners, st.lists(texts, max_size=3).map(tuple))


@given(outers, texts, st.dictionaries(texts, texts, max_size=3))
def test_what_is_dumped_loads_again(outer: Outer, model: str, table: dict[str, str]) -> None:
    config = Outer(outer.corpus, outer.inner, outer.names, model=model, table=table)
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(dump_config(config))
        file.flush()
        assert load_config(Outer, Path(file.name)) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_files_load(path: Path) -> None:
    of_folder: dict[str, type[Any]] = {"sweeps": SweepConfig, "corpora": CorpusConfig}
    kind = of_folder.get(path.parent.name) or KINDS[path.stem.partition("-")[0]]
    config = load_config(kind, path)
    assert check(kind, {**_plain(config)}, "again") == config


def _plain(config: Any) -> dict[str, Any]:
    import yaml

    plain: dict[str, Any] = yaml.safe_load(dump_config(config))
    return plain


def test_every_key_but_corpus_has_a_default() -> None:
    for kind in (FeaturesConfig, FusionConfig):
        assert kind(corpus="a.csv").corpus == "a.csv"


def test_conditions_are_parsed_as_they_are_read_and_saved_as_they_were_typed(tmp_path: Path) -> None:
    joint = "noise-white-minus5db+occlude-block-50"
    tree = {"corpus": "a.csv", "condition": joint, "augment": {"audio": ["noise-pink-10db"]}}
    config = check(FusionConfig, tree, "test")
    assert config.condition == parse_joint(joint)
    assert config.augment.audio == (parse_joint("noise-pink-10db"),)
    assert FusionConfig(corpus="a.csv").condition == parse_joint("clean")
    saved = yaml.safe_load(dump_config(config))
    assert saved["condition"] == joint
    assert saved["augment"]["audio"] == ["noise-pink-10db"]
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(FusionConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("conditions=[5]", "conditions.0: give the name of a condition, got 5"),
        ("conditions=[noise-white-10bd]", "unknown condition 'noise-white-10bd'; it is spelt noise-white-10db"),
        ("conditions=[noise-wite-10db]", "unknown condition 'noise-wite-10db' (did you mean noise-white-10db?)"),
        ("encoders={audio: null, video: null, text: null}", "every modality is null; name at least one encoder"),
        ("media.frames=1", "media.frames: Input should be greater than or equal to 2, got 1"),
        ("encoders.audo=x", "unknown key encoders.audo; did you mean audio?; allowed: audio, video, text"),
        ("asr.modle=x", "unknown key asr.modle; did you mean model?"),
        ("max_failed=-1", "max_failed: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_features_are_checked(tmp_path: Path, override: str, expected: str) -> None:
    (tmp_path / "x.yaml").write_text("corpus: a.csv\n")
    with pytest.raises(ValueError, match=r".") as error:
        load_config(FeaturesConfig, tmp_path / "x.yaml", [override])
    assert expected in str(error.value)


def test_main_runs_and_passes_the_exit_code_on(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("corpus: a.csv\n")
    seen = []

    def run(config: Outer) -> int:
        seen.append(config)
        return 3

    assert main(Outer, run, "x", ["--config", str(tmp_path / "x.yaml"), "size=16", "inner.steps=2"]) == 3
    assert seen == [Outer("a.csv", Inner(steps=2), size=16)]


@pytest.mark.parametrize("error", [ValueError("no such thing"), FileNotFoundError(2, "No such file", "y")])
def test_main_turns_user_errors_into_one_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    (tmp_path / "x.yaml").write_text("corpus: a.csv\n")

    def run(_: Outer) -> int:
        raise error

    assert main(Outer, run, "x", ["--config", str(tmp_path / "x.yaml")]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_main_refuses_a_bad_configuration_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("corpus: a.csv\n")
    assert main(Outer, lambda _: 0, "x", ["--config", str(tmp_path / "x.yaml"), "sise=16"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/x.yaml: unknown key sise; did you mean size?")


def test_overrides_may_stand_on_both_sides_of_an_option(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("corpus: a.csv\n")
    config = str(tmp_path / "x.yaml")
    assert (
        main(Outer, lambda one: one.size + one.inner.steps, "x", ["size=16", "--config", config, "inner.steps=2"]) == 18
    )


def test_main_turns_ctrl_c_into_one_word_and_130(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Outer) -> int:
        raise KeyboardInterrupt

    (tmp_path / "x.yaml").write_text("corpus: a.csv\n")
    assert main(Outer, run, "x", ["--config", str(tmp_path / "x.yaml")]) == 130
    assert capsys.readouterr().err == "interrupted\n"
