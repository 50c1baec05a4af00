"""`consilo model`: the analyst's runs, and the models that were released: list, show, predict, export."""

import argparse
import json
from pathlib import Path

from rich.console import Console

from analyst.cli.evaluating import add_evaluate_command
from analyst.cli.packing import add_pack_command
from analyst.errors import AnalystError
from analyst.training.registry import Registry, RunEntry
from federation.files import write_out
from federation.terminal import Commands, add_command, add_group, plain, put_out
from policies.models.card import Card, registered, written
from policies.models.exporting import FORMATS, FORMATS_IN_WORDS, exported
from policies.models.forms import Form
from policies.models.layers import layers_of
from policies.models.predicting import predict_by_form
from policies.models.released import ReleasedModel, digest_of_model
from policies.models.shown import fitted_lines
from policies.networks.names import NETWORKS
from policies.requests.families import SHAPES
from policies.requests.request import Request
from policies.requests.training import TrainingStep
from policies.units import counted, when

_HASHED = "its weights are of hashed values, which no form lists; an owner predicts with `consilo-silo models predict`"
_NO_FORM = "a feature has a long domain, which no form lists; an owner predicts with `consilo-silo models predict`"
_NETWORK = (
    "a network is released without its form where a silo keeps layers for itself, its packed file was not there, or a"
    " feature has a long domain; an owner predicts with `consilo-silo models predict`"
)
_STAYS = 'only its silos have it; train with recipients = ["silos", "analyst"], where every policy opens that'


def add_model_commands(commands: Commands) -> None:
    """Add the group `model`."""
    actions = add_group(commands, "model", "show your runs and their models, and use those that were released to you")
    listing = add_command(actions, "list", _list, "list your runs: job, end, silos, price, whose model")
    _federation(listing)
    listing.add_argument("--format", choices=["table", "json"], default="table")
    show = add_command(actions, "show", _show, "show one run, and its model if it was released")
    _run(show)
    show.add_argument("--format", choices=["table", "json"], default="table")
    text = "write the model's card there: FILE.html for people, FILE.json for programs"
    show.add_argument("--card", type=Path, metavar="FILE", help=text)
    add_evaluate_command(actions)
    predict = add_command(actions, "predict", _predict, "score the rows of a file with a model that was released")
    _run(predict)
    predict.add_argument("input", type=Path, metavar="INPUT", help="a CSV or Parquet file with the model's columns")
    predict.add_argument("--out", type=Path, metavar="FILE", help="write the scores there instead of printing them")
    export = add_command(actions, "export", _export, "write a model that predicts to a file")
    _run(export)
    export.add_argument("--format", choices=FORMATS, default="json", help=FORMATS_IN_WORDS)
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="where it is written")
    add_pack_command(actions)


def _federation(parser: argparse.ArgumentParser) -> None:
    default = Path("consilo.toml")
    parser.add_argument("--federation", type=Path, default=default, metavar="FILE", help="its consilo.toml")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="RUN", help="the run's name, or its beginning")
    _federation(parser)


def _registry(options: argparse.Namespace) -> Registry:
    if not options.federation.is_file():
        raise AnalystError(f"there is no {options.federation}", "name the consilo.toml with --federation")
    return Registry(options.federation.resolve().parent)


def _asked(entry: RunEntry) -> tuple[Request, TrainingStep]:
    request = entry.first()
    step = request.plan.training
    if step is None:
        raise AnalystError(f"{entry.name} is not of a training run", "remove its file")
    return request, step


def _list(options: argparse.Namespace, notes: Console) -> int:
    entries = _registry(options).entries()
    if options.format == "json":
        print(json.dumps([_fields(one) for one in entries], indent=2))
        return 0
    for one in entries:
        request, step = _asked(one)
        of = f" of {step.label}" if step.label else ""
        print(f"{one.name[:12]}  {step.opened_as}{of} in {request.table.name}, for {request.purpose}")
        print(f"              {_dates(one)}, {_standing(one, step)}")
    if not entries:
        print("no run yet")
    return 0


def _dates(entry: RunEntry) -> str:
    """Return on which days the run began and changed last, in UTC."""
    began, changed = when(entry.began_at)[:10], when(entry.changed_at)[:10]
    return f"of {began}" if began == changed else f"of {began} to {changed}"


def _standing(entry: RunEntry, step: TrainingStep) -> str:
    price = ""
    if entry.is_finished:
        known = entry.price
        price = ", without noise" if known is None else f", epsilon {known.epsilon:.2f} (rho {known.rho:g})"
    silos = f", {counted(len(entry.record.contributed), 'silo')}" if entry.record is not None else ""
    yours = ", released to you" if entry.model is not None else ""
    return f"{entry.done} of {counted(step.steps, 'round')}, {entry.state}{silos}{price}{yours}"


def _fields(entry: RunEntry) -> dict[str, object]:
    request, step = _asked(entry)
    return registered(step.opened_as, entry.record, entry.state, entry.price, entry.audit) | {
        "run": entry.name,
        "table": request.table.name,
        "purpose": request.purpose,
        "label": step.label,
        "features": list(step.features),
        "release": step.release,
        "steps": step.steps,
        "done": entry.done,
        "lost": entry.lost,
        "holders": list(entry.holders),
        "metrics": [one.model_dump(mode="json") for one in entry.metrics],
        "began_at": when(entry.began_at),
        "changed_at": when(entry.changed_at),
        "released": entry.model is not None,
        "why_not_released": entry.why_no_model or None,
        "sha256": None if entry.model is None else digest_of_model(entry.model.fitted, entry.model.portable),
        "fitted": None if entry.model is None else entry.model.fitted.model_dump(mode="json"),
    }


def _show(options: argparse.Namespace, notes: Console) -> int:
    entry = _registry(options).entry(options.name)
    request, step = _asked(entry)
    if options.card is not None:
        _write_card(_card(entry), options.card)
    if options.format == "json":
        print(json.dumps(_fields(entry), indent=2))
        return 0
    print(f"run {entry.name}: {plain(step.in_words(request.table.shown))}, for {request.purpose}")
    print(f"  {_standing(entry, step)}")
    for silo, count in ({} if entry.record is None else entry.record.contributed).items():
        print(f"  {silo}: in {counted(count, 'round')}")
    if entry.model is not None:
        print("\n".join(map(plain, fitted_lines(entry.model.fitted))))
        print("".join(f"  {plain(one)}\n" for one in layers_of(entry.record, entry.model.portable)), end="")
        print(f"  sha256 {digest_of_model(entry.model.fitted, entry.model.portable)}")
    elif entry.why_no_model:
        print(f"  not released to you: {plain(entry.why_no_model)}")
    else:
        print(f"  the model is at {', '.join(entry.holders) or 'no silo'}, and nowhere else")
    return 0


def _released(entry: RunEntry) -> ReleasedModel:
    if entry.model is not None:
        return entry.model
    if entry.goes_on_as is not None:
        raise AnalystError(f"the run {entry.name[:12]} {entry.state}", "name that run")
    entry.check_model()
    _, step = _asked(entry)
    if step.released_to is None:
        raise AnalystError(f"the model of run {entry.name[:12]} is not here", _STAYS)
    why = entry.why_no_model or "the run is not at its end"
    raise AnalystError(
        f"the model of run {entry.name[:12]} is not here: {why}", "give the command that trained it again"
    )


def _form(entry: RunEntry) -> Form:
    model = _released(entry)
    entry.check_model()
    if model.portable is not None:
        return model.portable
    shape = SHAPES.get(model.family)
    if shape is None or shape.predicts is None:
        raise AnalystError(f"no prediction form: {model.family} predicts nothing of a row", "take a model that does")
    hint = _HASHED if model.family == "hashed-logistic" else _NETWORK if model.family in NETWORKS else _NO_FORM
    raise AnalystError(f"no prediction form of the model of run {entry.name[:12]} was released", hint)


def _card(entry: RunEntry) -> Card:
    model, (request, _) = _released(entry), _asked(entry)
    if entry.record is None:
        raise AnalystError(f"run {entry.name[:12]} has no round", "train on")
    return Card(
        run=entry.name,
        family=model.family,
        purpose=request.purpose,
        analyst=request.analyst,
        done=entry.done,
        ended=model.ended or "",
        record=entry.record,
        price=entry.price,
        learned_at=entry.changed_at,
        expires_at=None,
        digest=digest_of_model(model.fitted, model.portable),
        fitted=model.fitted,
        metrics=entry.metrics,
        audit=entry.audit,
        holders=entry.holders,
        layers=layers_of(entry.record, model.portable),
    )


def _write_card(card: Card, file: Path) -> None:
    from federation.web.document import document  # the web stack is slow to import

    write_out(file, written(card, file, document))


def _predict(options: argparse.Namespace, notes: Console) -> int:
    found = predict_by_form(options.input, _form(_registry(options).entry(options.name)))
    put_out(found.text, options.out, found.in_words())
    return 0


def _export(options: argparse.Namespace, notes: Console) -> int:
    entry = _registry(options).entry(options.name)
    request, _ = _asked(entry)
    told = {"run": entry.name, "purpose": request.purpose, "analyst": request.analyst, "rounds": str(entry.done)}
    data = exported(_form(entry), options.format, told)
    write_out(options.out, data)
    print(f"{options.out}: {_released(entry).family}, {len(data):,} bytes")
    return 0
