"""Synthetic tables whose truth is known: who likes what, which payments are frauds, how much is sold."""

import numpy as np
import pyarrow as pa

from tests.uses.founding import Use

SHOPS = ("north", "south", "east", "west")
GROUPS, ITEMS = 12, 40
PRODUCTS, WEEKS = 20, 104


def ratings(rows: int = 2_000, seed: int = 3) -> Use:
    """Return which items customers liked: groups and items have hidden tastes of two numbers, whose product decides."""
    truth = np.random.default_rng(seed)
    group_taste, item_taste = truth.normal(0, 1.4, (GROUPS, 2)), truth.normal(0, 1.4, (ITEMS, 2))
    tables = {}
    for number, shop in enumerate(SHOPS):
        rng = np.random.default_rng([seed, number])
        group, item = rng.integers(0, GROUPS, rows), rng.integers(0, ITEMS, rows)
        odds = (group_taste[group] * item_taste[item]).sum(1) + rng.logistic(size=rows)
        tables[shop] = pa.table(
            {
                "id": [f"{shop}-{place}" for place in range(rows)],
                "segment": [f"g{one}" for one in group],
                "item": [f"i{one}" for one in item],
                "liked": odds > 0,
            }
        )
    columns = {
        "segment": _text("feature", [f"g{one}" for one in range(GROUPS)]),
        "item": _text("feature", [f"i{one}" for one in range(ITEMS)]),
        "liked": '{ type = "bool", class = "internal", roles = ["label"] }',
    }
    return Use("ratings", columns, tables, ("recommender", "logistic-regression"))


def payments(rows: int = 2_500, seed: int = 5) -> Use:
    """Return payments, 3 % of them frauds: large ones at night from a young account, and small ones in quick series."""
    tables = {}
    for number, bank in enumerate(SHOPS):
        rng = np.random.default_rng([seed, number])
        amount, hour = rng.gamma(2.0, 60.0, rows), rng.normal(14, 4, rows) % 24
        age, hourly = rng.gamma(3.0, 300.0, rows), rng.poisson(1.0, rows)
        is_fraud = rng.random(rows) < 0.03
        is_series = is_fraud & (rng.random(rows) < 0.5)
        is_night = is_fraud & ~is_series
        amount = np.where(is_night, rng.gamma(8.0, 90.0, rows), np.where(is_series, rng.uniform(1, 15, rows), amount))
        hour = np.where(is_night, rng.uniform(0, 5, rows), hour)
        age = np.where(is_night, rng.uniform(0, 60, rows), age)
        hourly = np.where(is_series, rng.integers(8, 25, rows), hourly)
        tables[bank] = pa.table(
            {
                "id": [f"{bank}-{place}" for place in range(rows)],
                "amount": np.round(amount, 2),
                "hour": np.round(hour, 1),
                "account_days": np.round(age),
                "in_last_hour": hourly.astype(float),
                "fraud": is_fraud,
            }
        )
    columns = {
        "amount": _number(0, 2000, 0.01),
        "hour": _number(0, 24, 0.1),
        "account_days": _number(0, 3000, 1),
        "in_last_hour": _number(0, 40, 1),
        "fraud": '{ type = "bool", class = "internal", roles = ["label"] }',
    }
    return Use("payments", columns, tables, ("mlp", "autoencoder", "logistic-regression"))


def sales(seed: int = 7) -> Use:
    """Return how many of each product every shop sold in each of two years' weeks, by season, price and offer."""
    truth = np.random.default_rng(seed)
    level, phase = truth.uniform(20, 90, PRODUCTS), truth.uniform(0, 2 * np.pi, PRODUCTS)
    tables = {}
    for number, shop in enumerate(SHOPS):
        rng = np.random.default_rng([seed, number])
        product, week = (one.ravel() for one in np.meshgrid(range(PRODUCTS), range(WEEKS), indexing="ij"))
        price, offer = rng.uniform(0.7, 1.3, len(week)), rng.random(len(week)) < 0.15
        season = 1 + 0.5 * np.sin(2 * np.pi * week / 52 + phase[product])
        sold = rng.poisson(level[product] * season * price**-1.5 * (1 + 0.6 * offer))
        tables[shop] = pa.table(
            {
                "id": [f"{shop}-{place}" for place in range(len(week))],
                "product": [f"p{one}" for one in product],
                "season_sin": np.round(np.sin(2 * np.pi * week / 52), 3),
                "season_cos": np.round(np.cos(2 * np.pi * week / 52), 3),
                "price": np.round(price, 2),
                "offer": offer,
                "sold": np.minimum(sold, 400).astype(float),
            }
        )
    columns = {
        "product": _text("feature", [f"p{one}" for one in range(PRODUCTS)]),
        "season_sin": _number(-1, 1, 0.001),
        "season_cos": _number(-1, 1, 0.001),
        "price": _number(0, 2, 0.01),
        "offer": '{ type = "bool", class = "internal", roles = ["feature"] }',
        "sold": _number(0, 400, 1, "label"),
    }
    return Use("sales", columns, tables, ("recommender", "mlp", "linear-regression"))


def _text(role: str, values: list[str]) -> str:
    domain = ", ".join(f'"{one}"' for one in (*values, "?"))
    return f'{{ type = "string", class = "internal", roles = ["{role}"], domain = [{domain}], unknown = "?" }}'


def _number(low: float, high: float, step: float, role: str = "feature") -> str:
    bounds = f"bounds = [{low}, {high}], step = {step}"
    return f'{{ type = "decimal", class = "internal", roles = ["{role}"], {bounds} }}'
