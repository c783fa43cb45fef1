"""What an outcome may hold, wherever it comes from."""

from __future__ import annotations

import jsonschema
import pytest
from pydantic import ValidationError

from luff.outcome import Outcome
from luff.report.document import read_outcomes, render
from tests.factories import check, passed, validate


def test_what_is_written_is_text_also_when_a_folder_has_a_name_that_is_not() -> None:
    made = passed(
        explanation="caf\udce9 is slow",
        labels={"caf\udce9": "\ud83d\ude00"},
        spec={"metadata": {"name": "caf\udce9"}},
        checks=[check(file="caf\udce9/x.yaml")],
    )

    written = render(made)

    assert written.encode().decode() == written
    assert "caf\ufffd/x.yaml" in written
    assert "\\ud" not in written
    assert read_outcomes(written, "x.json") == [made]


@pytest.mark.parametrize("run", ["", "9f2c", "9F2C" * 4, "0" * 17, "0" * 15 + "\n"])
def test_a_run_is_named_by_16_hex_digits(run: str) -> None:
    document = {**passed().model_dump(mode="json", by_alias=True), "run": run}

    with pytest.raises(ValidationError, match="run"):
        Outcome.model_validate(document)
    with pytest.raises(jsonschema.ValidationError, match="does not match"):
        validate(document)
