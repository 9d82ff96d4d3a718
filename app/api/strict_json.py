"""Bodies as JSON, and as nothing that only Python takes for JSON.

Python's own reader takes NaN, and goes as deep as its stack; what it lets in would fail somewhere later, as a defect.
"""

import json
from typing import Any

from fastapi import Request
from pydantic_core import from_json
from starlette.exceptions import HTTPException


class StrictRequest(Request):
    """A request whose JSON is read strictly: to 200 levels, numbers of 4,300 digits, and in UTF-8."""

    async def json(self) -> Any:
        """
        Raises:
            json.JSONDecodeError: it is no JSON; FastAPI says where.
            HTTPException: 400, it is JSON that is too deep, or not in Unicode.
        """
        body = await self.body()
        try:
            return from_json(body, allow_inf_nan=False)
        except ValueError as error:
            reason = str(error)
        try:
            json.loads(body)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError):
            pass  # what follows says why
        raise HTTPException(400, f"The body's JSON: {reason}.")
