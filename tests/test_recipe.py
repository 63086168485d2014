"""Recipes: what is in the file, what flags change, and what is refused. The report's recipe, number for number."""

import dataclasses
import tomllib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

import train_qa
from minitransformer.system.errors import RecipeError, UserError
from minitransformer.training import recipe
from minitransformer.training.optim import step_rate
from minitransformer.training.recipe import option


@dataclass(frozen=True)
class Small:
    name: str = option("demo", "a text")
    steps: int = option(10, "a whole number", at_least=1)
    rate: float = option(0.5, "a number", at_least=0.0, at_most=1.0)
    decay: bool = option(True, "yes or no")
    schedule: str = option("step", "one of two", choices=("step", "linear"))
    out: str = option("", "where to", passing=True)


@pytest.fixture
def parse(tmp_path):
    """parse(TOML, flags...) -> the recipe."""

    def of(text: str, *flags: str) -> Small:
        path = tmp_path / "small.toml"
        path.write_text(text, encoding="utf-8")
        return recipe.parse(Small, default=str(path), description="", argv=list(flags))[1]

    return of


def refusal(parse, text: str, *flags: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(text, *flags)
    return str(caught.value)


def test_recipe_takes_defaults_where_the_file_is_silent(parse):
    assert parse("") == Small()


def test_recipe_takes_the_file_over_the_default_and_the_flag_over_the_file(parse):
    job = parse('steps = 20\nrate = 0.25\nname = "file"', "--steps", "30", "--no-decay")
    assert job == Small(name="file", steps=30, rate=0.25, decay=False)


def test_recipe_is_named_after_its_file(tmp_path):
    (tmp_path / "mine.toml").touch()
    flags = ["--recipe", str(tmp_path / "mine.toml")]
    assert recipe.parse(Small, default="demo-qa", description="", argv=flags) == ("mine", Small())


@pytest.mark.parametrize("field", dataclasses.fields(train_qa.Recipe), ids=lambda field: field.name)
def test_recipe_has_a_flag_for_every_field(field):
    flag = "--" + field.name.replace("_", "-")
    before = getattr(recipe.parse(train_qa.Recipe, default="modern", description="", argv=[])[1], field.name)
    if field.type is bool:
        given, value = [f"--no-{flag[2:]}" if before else flag], not before
    elif "choices" in field.metadata:
        value = next(choice for choice in field.metadata["choices"] if choice != before)
        given = [flag, value]
    else:
        value = {str: "other", int: 7, float: 0.625}[field.type]
        given = [flag, str(value)]
    _, job = recipe.parse(train_qa.Recipe, default="modern", description="", argv=given)
    assert getattr(job, field.name) == value
    assert type(getattr(job, field.name)) is field.type


def test_recipe_has_help_for_every_field():
    assert all(field.metadata["help"] for field in dataclasses.fields(train_qa.Recipe))


def test_recipe_takes_a_whole_number_for_a_float(parse):
    job = parse("rate = 1")
    assert (job.rate, type(job.rate)) == (1.0, float)
    assert type(parse("", "--rate", "1").rate) is float


def test_recipe_takes_a_negative_number_with_an_exponent():
    flags = ["--null-threshold", "-1e-3", "--stride", "-1"]
    _, job = recipe.parse(train_qa.Recipe, default="modern", description="", argv=flags)
    assert (job.null_threshold, job.stride) == (-0.001, -1)


def test_recipe_takes_an_equals_sign_inside_a_value(parse):
    assert parse("", "--name=a=b").name == "a=b"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("stepz = 3", "unknown field 'stepz' (did you mean 'steps'?)"),
        ("qqq = 3", "unknown field 'qqq'"),
        ("[training]\nsteps = 3", "unknown field 'training'"),
        ("steps = 1.5", "steps: 1.5 is not a whole number"),
        ("steps = true", "steps: True is not a whole number"),
        ('steps = "3"', "steps: '3' is not a whole number"),
        ("steps = 0", "steps: 0 is below 1"),
        ("rate = 1.5", "rate: 1.5 is above 1.0"),
        ("rate = -1", "rate: -1.0 is below 0.0"),
        ("rate = nan", "rate: nan is not a finite number"),
        ("rate = inf", "rate: inf is not a finite number"),
        ("rate = 1" + 400 * "0", "is not a finite number"),
        ('decay = "yes"', "decay: 'yes' is not true or false"),
        ("decay = 1", "decay: 1 is not true or false"),
        ("name = 3", "name: 3 is not a text"),
        ("name = 2022-01-01", "is not a text"),
        ('schedule = "liner"', "schedule: 'liner' is no choice (did you mean 'linear'?); choose from step, linear"),
        ("steps =", "not TOML"),
        ("steps = 1" + 5000 * "0", "not TOML"),
        ("steps = 3\nsteps = 4", "not TOML"),
        (10_000 * "[", "not TOML"),
    ],
)
def test_recipe_refuses_a_file_with_a_wrong_line(parse, tmp_path, line, problem):
    message = refusal(parse, line)
    assert message.startswith(f"{tmp_path / 'small.toml'}: ")
    assert problem in message


def test_recipe_takes_a_byte_order_mark(parse):
    assert parse("\ufeffrate = 0.25\n").rate == 0.25


def test_recipe_of_another_job_is_told_apart():
    with pytest.raises(RecipeError, match=r"mlm\.toml: unknown field 'vocabulary'; is it a recipe of another job\?"):
        recipe.parse(train_qa.Recipe, default="mlm", description="", argv=[])


def test_recipe_refuses_a_file_that_is_not_utf_8(tmp_path):
    (tmp_path / "small.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(RecipeError, match="not TOML"):
        recipe.parse(Small, default=str(tmp_path / "small.toml"), description="", argv=[])


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--stepz", "3"], "unknown flag '--stepz' (did you mean '--steps'?)"),
        (["--stepz=3"], "unknown flag '--stepz' (did you mean '--steps'?)"),
        (["--step", "3"], "unknown flag '--step' (did you mean '--steps'?)"),  # no abbreviations: they break later
        (["left over"], "unknown flag 'left over'"),
        (["--steps"], "--steps: expected one argument"),
        (["--steps", "1.5"], "--steps: '1.5' is not a whole number"),
        (["--steps", ""], "--steps: '' is not a whole number"),
        (["--steps", "0"], "--steps: 0 is below 1"),
        (["--rate", "nan"], "--rate: nan is not a finite number"),
        (["--rate", "much"], "--rate: 'much' is not a finite number"),
        (["--rate", "2"], "--rate: 2.0 is above 1.0"),
        (["--schedule", "liner"], "--schedule: 'liner' is no choice (did you mean 'linear'?)"),
        (["--decay", "maybe"], "unknown flag 'maybe'"),
        (["--name", "\udcff"], "is not UTF-8"),
    ],
)
def test_recipe_refuses_a_wrong_flag(parse, flags, problem):
    assert problem in refusal(parse, "", *flags)


def test_recipe_names_the_recipes_there_are():
    with pytest.raises(RecipeError, match=r"no recipe 'modem' \(did you mean 'modern'\?\); recipes/ has .*parsbert"):
        recipe.find("modem")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 2**63), st.floats(0, 1), st.booleans())
def test_recipe_written_reads_back_as_it_was(name, steps, rate, decay):
    job = Small(name=name, steps=steps, rate=rate, decay=decay)
    assert Small(**tomllib.loads(recipe.write(job))) == job


@pytest.mark.parametrize("name", ['a "quoted" name', "two\nlines\r\n", "C:\\data\\x", "\x00\x1b\x7f", "می‌شود 😀", "#="])
def test_recipe_writes_odd_texts_as_toml(name):
    assert tomllib.loads(recipe.write(Small(name=name)))["name"] == name


def test_recipe_does_not_write_where_a_run_went():
    assert "out" not in tomllib.loads(recipe.write(Small(out="runs/x")))


@pytest.mark.parametrize("name", ["demo-qa", "modern", "parsbert", "albert-fa"])
def test_recipes_that_ship_are_whole(name):
    assert recipe.parse(train_qa.Recipe, default=name, description="", argv=[])[0] == name


def test_parsbert_is_the_reports_run_number_for_number():
    _, job = recipe.parse(train_qa.Recipe, default="parsbert", description="", argv=[])
    assert (job.max_length, job.stride) == (512, -1)  # one feature per example, no windows
    assert job.head_dropout == 0.2
    assert (job.learning_rate, job.weight_decay, job.decay_all) == (5e-5, 0.1, True)
    assert (job.schedule, job.gamma) == ("step", 0.1)
    assert (job.epochs, job.max_steps, job.batch_size) == (1, 0, 16)
    assert (job.warmup, job.clip_norm) == (0.0, 0.0)  # the report has neither
    assert job.print_every == 100
    assert (job.limit_train, job.limit_valid) == (0, 0)
    assert job.max_answer_tokens == job.max_length  # span argmax without a cap
    assert job.null_threshold == 0.0

    steps_per_epoch = -(-63_994 // job.batch_size)  # PQuAD's training questions
    assert steps_per_epoch == 4_000
    assert [step // job.print_every * job.print_every for step in (steps_per_epoch - 1,)] == [3_900]  # its last print
    rates = [job.learning_rate * step_rate(step, steps_per_epoch, job.gamma) for step in (0, 3_999, 4_000, 8_000)]
    assert rates == pytest.approx([5e-5, 5e-5, 5e-6, 5e-7])


def test_albert_fa_is_the_same_run_of_another_model():
    parsbert, albert_fa = (
        recipe.parse(train_qa.Recipe, default=name, description="", argv=[])[1] for name in ("parsbert", "albert-fa")
    )
    assert albert_fa == dataclasses.replace(parsbert, weights="albert-fa")
