"""Why a case fails or is skipped."""


class BrokenContractError(Exception):
    """An adapter breaks the contract. The message says where and when."""


class NotApplicableError(Exception):
    """The engine or the shape does not allow a case. The message says why."""
