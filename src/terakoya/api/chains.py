"""Chains of tasks: begin, go on, branch, look, check every byte, erase kept rows, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from terakoya.api.dependencies import Chains
from terakoya.api.schemas.chains import ChainList, ChainMatrix, ChainSummary, ChainVerdict, ChainWhole, ErasedRows
from terakoya.api.schemas.tasks import TaskAccepted
from terakoya.training.chain_request import BeginRequest, ExtendRequest
from terakoya.training.request import TrainingRequest

router = APIRouter(tags=["chains"])
ChosenModel = Annotated[str | None, Query(min_length=1, max_length=200)]
ChosenLink = Annotated[str | None, Query(min_length=1, max_length=100)]
WithModels = Annotated[bool, Query(description="delete the chain's models too; without it a chain with models stays")]


@router.get("/api/chains")
def list_chains(chains: Chains) -> ChainList:
    """Newest first."""
    return ChainList(chains=[ChainSummary.of(each) for each in chains.list()])


@router.post("/api/chains", status_code=202)
def begin_chain(body: BeginRequest, chains: Chains) -> TaskAccepted:
    """Queue the first task of a new chain: a training run with strategy ``ewc``."""
    request = TrainingRequest.model_validate(body.model_dump(mode="json", exclude_unset=True) | {"strategy": "ewc"})
    return TaskAccepted(task_id=chains.begin(request).id)


@router.get("/api/chains/{chain}")
def get_chain(chain: str, chains: Chains) -> ChainWhole:
    """A chain by its id, or by id or name of a model in it, with what its manifests say; ``verify`` checks bytes."""
    return ChainWhole.of(chains.get(chain))


@router.post("/api/chains/{chain}/verify")
def verify_chain(chain: str, chains: Chains) -> ChainVerdict:
    """Hash every byte anew and name each file that is missing, changed or foreign."""
    return ChainVerdict.of(chains.verify(chain))


@router.get("/api/chains/{chain}/matrix")
def get_matrix(chain: str, chains: Chains, model: ChosenModel = None) -> ChainMatrix:
    """Scores of every task after every task up to a model, and what is read off them."""
    return ChainMatrix.model_validate(chains.matrix(chain, model=model))


@router.post("/api/chains/{chain}/extend", status_code=202)
def extend_chain(chain: str, body: ExtendRequest, chains: Chains) -> TaskAccepted:
    """Queue the next task. A second one from the same model is refused unless it is to be a branch."""
    return TaskAccepted(task_id=chains.extend(chain, body.fields_given(), branch=body.branch).id)


@router.delete("/api/chains/{chain}/rows")
def erase_rows(chain: str, chains: Chains, link: ChosenLink = None) -> ErasedRows:
    """Erase the rows that the chain, or one link of it, keeps of its tasks. Says what that costs."""
    return ErasedRows.model_validate(chains.erase(chain, link=link))


@router.delete("/api/chains/{chain}/links/{link}", status_code=204)
def delete_link(chain: str, link: str, chains: Chains) -> None:
    """Delete the last link of a branch whose model is gone."""
    chains.delete_link(chain, link)


@router.delete("/api/chains/{chain}", status_code=204)
def delete_chain(chain: str, chains: Chains, models: WithModels = False) -> None:
    """Delete every folder of a chain. Refused while a model or an unfinished run needs it."""
    chains.delete(chain, with_models=models)
