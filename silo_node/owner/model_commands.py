"""`consilo-silo models`: the models that a silo holds: list, show, predict, export."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from federation.files import write_out
from federation.terminal import Commands, add_command, plain, put_out
from policies.document.load import load
from policies.document.policy import Policy
from policies.models.card import Card, written
from policies.models.exporting import FORMATS, FORMATS_IN_WORDS, exported
from policies.models.record import run_named
from policies.requests.families import SHAPES
from policies.units import counted
from silo_node.errors import SiloError
from silo_node.owner.model_registry import HeldModel, held_models
from silo_node.training.best import at_best
from silo_node.training.leaving import may_leave
from silo_node.training.portable import portable_of
from silo_node.training.predicting import predictor_of, scorer_of
from silo_node.training.shown import model_fields, shown


def add_model_commands(commands: Commands) -> None:
    """Add `models` with its actions; without one it shows every model."""
    models = add_command(commands, "models", _all, "show the models that the silo holds")
    _options(models)
    actions = models.add_subparsers(metavar="ACTION")
    listing = add_command(actions, "list", _list, "list the models: job, end, price, silos, when they are erased")
    _options(listing, is_needed=True)
    show = add_command(actions, "show", _show, "show one model, and what is known of its run")
    show.add_argument("name", metavar="RUN", help="the run's name, or its beginning")
    _options(show, is_needed=True)
    text = "write the model's card there: FILE.html for people, FILE.json for programs"
    show.add_argument("--card", type=Path, metavar="FILE", help=text)
    predict = add_command(actions, "predict", _predict, "score the rows of a file with a model")
    predict.add_argument("name", metavar="RUN", help="the run's name, or its beginning")
    predict.add_argument("input", type=Path, metavar="INPUT", help="a CSV or Parquet file with the model's columns")
    predict.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    predict.add_argument("--out", type=Path, metavar="FILE", help="write the scores there instead of printing them")
    _best_option(predict)
    export = add_command(actions, "export", _export, "write a model that predicts to a file")
    export.add_argument("name", metavar="RUN", help="the run's name, or its beginning")
    export.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml")
    export.add_argument("--format", choices=FORMATS, default="json", help=FORMATS_IN_WORDS)
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="where it is written")
    _best_option(export)


def _best_option(parser: argparse.ArgumentParser) -> None:
    text = "the network after the round that was best by the run's metric, in the place of the last one"
    parser.add_argument("--best", action="store_true", help=text)


def _options(parser: argparse.ArgumentParser, *, is_needed: bool = False) -> None:
    # Without an action it is asked for in `_all`: argparse would ask for it beside that of the action.
    text = "the policy.toml beside the ledger"
    parser.add_argument("--policy", type=Path, required=is_needed, metavar="FILE", help=text)
    parser.add_argument("--format", choices=["table", "json"], default="table")


def _loaded(options: argparse.Namespace) -> tuple[Policy, list[HeldModel]]:
    policy = load(options.policy).policy
    return policy, held_models(policy, options.policy.resolve().parent)


def _the_model(models: list[HeldModel], name: str, *, is_best: bool = False) -> HeldModel:
    found = run_named(models, name, "", "consilo-silo models list")
    return replace(found, state=at_best(found.state)) if is_best else found


def _all(options: argparse.Namespace) -> int:
    if options.policy is None:
        raise SiloError("whose models: --policy is missing", "add --policy FILE, the policy.toml beside the ledger")
    _, models = _loaded(options)
    if options.format == "json":
        print(json.dumps([_fields(one) for one in models], indent=2))
        return 0
    for one in models:
        _print(one)
    if not models:
        print("no model yet")
    return 0


def _list(options: argparse.Namespace) -> int:
    _, models = _loaded(options)
    if options.format == "json":
        print(json.dumps([one.state.summary() | one.registered() for one in models], indent=2))
        return 0
    for one in models:
        of = f" of {one.state.label}" if one.state.label else ""
        print(f"{one.name[:12]}  {plain(one.family + of)}, for {one.state.purpose}, asked by {one.state.analyst}")
        print(f"              {_standing(one)}")
    if not models:
        print("no model yet")
    return 0


def _standing(one: HeldModel) -> str:
    price = "without noise" if one.price is None else f"epsilon {one.price.epsilon:.2f} (rho {one.price.rho:g})"
    silos = "" if one.state.record is None else f", {counted(len(one.state.record.contributed), 'silo')}"
    erased = "" if one.erased_after is None else f", erased after {_day(one)}"
    rounds = f"{one.state.done} of {counted(one.state.steps, 'round')}"
    return f"{rounds}, {one.end}{silos}, {price}, {one.size:,} bytes{erased}"


def _day(one: HeldModel) -> str:
    return str(one.registered()["erased_after"])[:10]


def _fields(one: HeldModel) -> dict[str, object]:
    return {**one.state.summary(), **model_fields(one.state), "registry": one.registered()}


def _print(one: HeldModel) -> None:
    state = one.state
    print(f"run {one.name}: {state.done} of {counted(state.steps, 'step')}, {state.release}, for {state.purpose}")
    print("\n".join(map(plain, shown(state))))


def _show(options: argparse.Namespace) -> int:
    _, models = _loaded(options)
    one = _the_model(models, options.name)
    if options.card is not None:
        _write_card(one.card(), options.card)
    if options.format == "json":
        print(json.dumps(_fields(one), indent=2))
        return 0
    _print(one)
    print("".join(f"  {plain(line)}\n" for line in one.layers), end="")
    print(f"  {_standing(one)}")
    for silo, count in ({} if one.state.record is None else one.state.record.contributed).items():
        print(f"  {silo}: in {counted(count, 'round')}")
    print(f"  sha256 {one.digest}")
    if one.stays:
        print(f"  {one.stays}")
    if one.family in SHAPES and SHAPES[one.family].predicts is not None:
        print(f"  metrics: an evaluation's figures go to the analyst alone; {one.state.analyst} sees them with")
        print(f"    consilo model show {one.name[:12]}")
    return 0


def _write_card(card: Card, file: Path) -> None:
    from federation.web.document import document  # the web stack is slow to import

    write_out(file, written(card, file, document))


def _predict(options: argparse.Namespace) -> int:
    policy, models = _loaded(options)
    one = _the_model(models, options.name, is_best=options.best)
    predictor = predictor_of(one.state)
    may_leave(policy, one.state, "predict")
    found = predictor(options.input)
    put_out(found.text, options.out, found.in_words())
    return 0


def _export(options: argparse.Namespace) -> int:
    policy, models = _loaded(options)
    one = _the_model(models, options.name, is_best=options.best)
    form = portable_of(one.state)
    may_leave(policy, one.state, "export")
    data = exported(form, options.format, _told(one), scorer_of(one.state))
    write_out(options.out, data)
    print(f"{options.out}: {one.family}, {len(data):,} bytes")
    return 0


def _told(one: HeldModel) -> dict[str, str]:
    """Return what a file of weights says of its run."""
    return {"run": one.name, "purpose": one.state.purpose, "analyst": one.state.analyst, "rounds": str(one.state.done)}
