"""Clients of OpenAI's route. They have no ids, so whoever is cut begins anew."""

from typing import ClassVar

from loadtests.surfaces import OpenAI, Surface, Wish
from loadtests.users.base import StreamingUser
from loadtests.users.native import PROMPT


class OpenAIChat(StreamingUser):
    """What OpenAI's SDK asks for."""

    scenario: ClassVar[str] = "OpenAI chat"
    surface: ClassVar[Surface] = OpenAI()
    resumable: ClassVar[bool] = False

    def wish(self) -> Wish:
        return Wish(PROMPT, self.random.randint(20, 100), self.pace(), seed=self.random.randrange(1_000_000))
