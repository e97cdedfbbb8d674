"""One tree of errors under txredisapi's."""

from __future__ import annotations

import pytest
import txredisapi

from txharedis.errors import HARedisError, NoMaster, OutcomeUnknown, ServiceStopped, TransactionLost


@pytest.mark.parametrize(
    "error",
    [
        NoMaster("n"),
        OutcomeUnknown("o", ["SET", "k", "v"]),
        ServiceStopped("s"),
        TransactionLost("t", True, None),
    ],
    ids=repr,
)
def test_what_txredisapi_has_a_connection_error_for_is_one_here_too(error: Exception) -> None:
    assert isinstance(error, txredisapi.ConnectionError)
    assert isinstance(error, HARedisError)
