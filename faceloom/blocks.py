"""What a run has in hand: blocks of items, what is known of each item, and the jobs that are under way."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import ray

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass
class Case(Generic[ItemT, ResultT]):
    """One item in its block: how many ``parts`` it has, once that is known, and their results and payloads so far."""

    item: ItemT
    position: int
    most: int
    parts: int | None = None
    results: dict[int, ResultT] = field(default_factory=dict)
    payloads: dict[int, ray.ObjectRef] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether every part has a result."""
        return self.parts == len(self.results)

    @property
    def held(self) -> int:
        """Payloads that are, or may yet come to be, in memory."""
        return (self.parts or self.most) - len(self.results) + len(self.payloads)


@dataclass
class Block(Generic[ItemT, ResultT]):
    """One block. Its counts are kept up rather than made anew, for they are asked for with every result."""

    number: int
    cases: list[Case[ItemT, ResultT]]
    undecided: int
    held: int

    @classmethod
    def of(cls, number: int, items: list[ItemT], most: int) -> "Block[ItemT, ResultT]":
        """A block of which nothing is known yet."""
        cases: list[Case[ItemT, ResultT]] = [Case(item, position, most) for position, item in enumerate(items)]
        return cls(number, cases, len(items), most * len(items))

    def divide(self, case: Case[ItemT, ResultT], parts: int) -> None:
        """The item turned out to have so many parts."""
        self.held -= case.held
        case.parts = parts
        self.held += case.held

    def decide(self, case: Case[ItemT, ResultT], part: int, result: ResultT, payload: ray.ObjectRef | None) -> None:
        """A part has its result and, if it passed the last stage, its payload."""
        self.held -= case.held
        case.results[part] = result
        if payload is not None:
            case.payloads[part] = payload
        self.held += case.held
        self.undecided -= case.decided

    def restart(self, case: Case[ItemT, ResultT]) -> Case[ItemT, ResultT]:
        """Put a new case in the place of one that is not decided; whatever is still in work of the old one is stale."""
        self.held += case.most - case.held
        self.cases[case.position] = Case(case.item, case.position, case.most)
        return self.cases[case.position]


@dataclass
class Job(Generic[ItemT, ResultT]):
    """One item, or one part of it, on its way through the pools.

    ``losses`` counts the workers of its present stage that were lost over it; ``nodes`` those that were lost with their node.
    """

    block: Block[ItemT, ResultT]
    case: Case[ItemT, ResultT]
    part: int = 0
    stage: int = 0
    losses: int = 0
    nodes: int = 0
    result: ResultT | None = None
    payload: ray.ObjectRef | None = None

    @property
    def stale(self) -> bool:
        """Whether its item has been started anew meanwhile, so that its result is of no use."""
        return self.block.cases[self.case.position] is not self.case

    def advance(self, result: ResultT, payload: ray.ObjectRef) -> None:
        """Go on to the next stage with what this one made."""
        self.stage, self.result, self.payload = self.stage + 1, result, payload
        self.losses = self.nodes = 0
