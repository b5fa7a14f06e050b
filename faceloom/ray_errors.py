"""What Ray's exceptions say."""

from ray.exceptions import ObjectLostError, RayTaskError


def lost_object(error: BaseException) -> bool:
    """Whether an object is gone, with the node that held it."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ObjectLostError)


def reason(error: BaseException) -> str:
    """What of a Ray error says what happened."""
    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    told = [number for number, line in enumerate(lines) if "UserError: " in line]
    if told:  # its remedy may take several lines
        return "\n".join(lines[told[-1] :]).partition("UserError: ")[2]
    # Ray goes on for a paragraph about what may have been the cause of any death.
    return lines[-1].partition(" Some common causes include")[0] if lines else type(cause).__name__
