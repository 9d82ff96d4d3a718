"""Bodies and answers of /api/v1/tasks."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas import (
    PROMPT_CHARACTERS_MAX,
    MaxTokens,
    ModelName,
    Prompt,
    SimulatorBody,
    Temperature,
    UsageAnswer,
)

PROMPTS_MAX = 100
# The request is kept with the task, and each worker that takes it over reads it.
CHARACTERS_MAX = 500_000

TaskStatus = Literal["pending", "running", "completed", "failed", "cancelled"]


class TaskBody(BaseModel):
    """Prompts to answer without anybody waiting for it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Literal["batch"] = Field("batch", description="A batch of prompts, each answered by itself.")
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=PROMPTS_MAX)] = Field(description="What to answer.")
    model: ModelName | None = None
    system: Annotated[str, Field(max_length=PROMPT_CHARACTERS_MAX)] | None = Field(
        None, description="Instructions that precede each prompt."
    )
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    simulator: SimulatorBody | None = Field(None, description="How the simulator behaves; only in development.")

    @model_validator(mode="after")
    def _is_not_too_much(self) -> Self:
        if sum(map(len, self.prompts)) > CHARACTERS_MAX:
            raise ValueError(f"prompts: more than {CHARACTERS_MAX} characters together")
        return self


class ItemError(BaseModel):
    """Why a prompt has no answer."""

    code: str = Field(examples=["upstream_timeout"], description="What failed, for programs.")
    message: str = Field(description="What failed, for people.")
    retryable: bool = Field(description="Whether the same prompt may succeed later.")


class ItemAnswer(BaseModel):
    """What became of one prompt: an answer or an error."""

    index: int = Field(description="The prompt's place in the request, from 0.", examples=[0])
    response: str | None = Field(None, examples=["Rayleigh scattering."], description="The text, once there is one.")
    finish_reason: str | None = Field(None, examples=["stop"], description="Why it ended.")
    usage: UsageAnswer | None = Field(None, description="Tokens of this prompt and its answer.")
    error: ItemError | None = Field(None, description="What failed, if something did.")


class TaskResult(BaseModel):
    """What became of all prompts; of a task that did not complete, of those that were answered."""

    model: str = Field(examples=["simulator"], description="The model that answered.")
    items: list[ItemAnswer] = Field(description="In the order of the prompts.")
    succeeded: int = Field(examples=[2], description="How many prompts have an answer.")
    failed: int = Field(examples=[0], description="How many have an error.")
    usage: UsageAnswer


class TaskAnswer(BaseModel):
    """How a task is."""

    task_id: str = Field(examples=["pYnkZ0gC2rT1uVwX3yZaBcDe"], description="The task's name.")
    kind: Literal["batch"] = Field("batch", description="What it does.")
    status: TaskStatus = Field(examples=["running"], description="How far it is, or how it ended.")
    progress: float = Field(ge=0, le=1, description="The share of the prompts that are through.", examples=[0.5])
    completed: int = Field(description="Prompts that are through.", examples=[1])
    total: int = Field(examples=[2], description="How many prompts it has.")
    created: datetime = Field(description="When it was asked for.")
    result: TaskResult | None = Field(None, description="Once the task has ended.")
    error: ItemError | None = Field(None, description="Why it failed.")
