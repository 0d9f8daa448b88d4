"""Why a case does not pass."""


class BrokenContractError(Exception):
    """An adapter does not keep the contract. The message says where and when."""


class NotApplicableError(Exception):
    """The engine, or its shape, has nothing to try a case with. The message says why."""
