"""Whole questions for survival curves, over several silos in memory."""

from pathlib import Path

from analyst.asking import Command
from analyst.demo.hospitals import PURPOSE
from analyst.preview import preview, preview_lines
from analyst.reports.render import render
from analyst.reports.report import decoded, encoded
from tests.harness.simulator import simulate
from tests.rounds.test_rounds import ask

CURVES = "SELECT sex, SURVIVAL(survival, died) FROM lung GROUP BY sex"


def test_show(home: Path) -> None:
    with simulate(home) as simulation:
        report = ask(simulation, CURVES, 2.0)
        for l in preview_lines(preview(simulation.federation, Command(CURVES, PURPOSE, 2.0))):
            print(l)
        for q in (
            "SELECT survival, SUM(died) AS deaths, COUNT(*) AS left_here FROM lung GROUP BY survival ORDER BY survival",
            CURVES + " ORDER BY sex",
            "SELECT COUNT(*), SURVIVAL(survival, died) FROM lung",
            "SELECT SURVIVAL(survival) FROM lung",
            "SELECT SURVIVAL(died, survival) FROM lung",
            "SELECT SURVIVAL(survival, age) FROM lung",
            "SELECT SURVIVAL(survival, died, 0.5) FROM lung",
            "SELECT SURVIVAL(survival, died, age) FROM lung",
            "SELECT SURVIVAL(survival, died, 0) FROM lung",
            "SELECT SURVIVAL(survival + 1, died) FROM lung",
            "SELECT SURVIVAL(survival, died) FROM lung GROUP BY sex",
            "SELECT SURVIVAL(survival, died) * 2 FROM lung",
            "SELECT SURVIVAL(survival, died) FILTER (WHERE age > 60) FROM lung",
            "SELECT sex AS time, SURVIVAL(survival, died) FROM lung GROUP BY sex",
            "SELECT SURVIVAL(survival, died), SURVIVAL(age, died) FROM lung",
            "SELECT sex, survival(survival, died, 30) as s FROM lung WHERE age > 50 GROUP BY 1",
            "SELECT SURVIVAL(weight_loss, died) FROM lung",
            "SELECT SURVIVAL(sex, died) FROM lung",
            "SELECT SURVIVAL(DISTINCT survival, died) FROM lung",
            "SELECT sex, RANK() OVER (ORDER BY SURVIVAL(survival, died)) FROM lung GROUP BY sex",
            "SELECT sex FROM lung GROUP BY sex HAVING SURVIVAL(survival, died) > 3",
            "SELECT sex, COUNT(*) FROM lung WHERE SURVIVAL(survival, died) > 3 GROUP BY sex",
            "SELECT SURVIVAL(s, d) FROM (SELECT patient_id, MAX(survival) AS s, BOOL_OR(died) AS d FROM lung GROUP BY patient_id)",
            "WITH t AS (SELECT * FROM lung WHERE age > 60) SELECT SURVIVAL(survival, died) FROM t",
            "SELECT CASE WHEN age < 60 THEN 'y' ELSE 'o' END AS a, SURVIVAL(survival, died) AS s FROM lung GROUP BY a",
            "SELECT a.sex, SURVIVAL(a.survival, a.died) FROM lung a GROUP BY a.sex",
        ):
            try:
                r = simulation.federation.prepare(q, purpose=PURPOSE, epsilon=0.5)
                print("OK", q, "\n     ", r[0].plan.in_words("lung"), r[0].output)
            except Exception as e:
                print(type(e).__name__, q, "\n     ", e, "\n     ", getattr(e, "hint", ""))
    print(render(report, "table"))
    assert decoded(encoded(report)) == report
