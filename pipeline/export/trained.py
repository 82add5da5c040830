"""What an export is made of: a network under PyTorch, and the databases it is tried on."""

from dataclasses import dataclass

import torch

from pipeline.config.params import Params
from pipeline.models.torch_encoder import TorchEncoder, open_torch_encoder
from pipeline.search.databases import Database, open_database, open_study_database
from pipeline.search.search import NamedNetwork, ParamsFor, choose_with_params


@dataclass(frozen=True)
class Trained:
    """A network under PyTorch, the database of its study, and that which was asked for; all open,
    with the parameters of their study.
    """

    params: Params
    named: NamedNetwork
    encoder: TorchEncoder
    studied: Database
    database: Database


def open_for_export(
    params_for: ParamsFor,
    network: str | None,
    dataset: str | None,
    index: str | None = None,
    *,
    newest: bool = False,
) -> Trained:
    """Open the network as `choose_network` finds it, on the CPU, the database of its data set, and
    the index, if one is named.

    Raises ValueError for names that are not there or do not agree, and files that cannot be read.
    """
    params, named = choose_with_params(params_for, network, dataset, index, newest=newest)
    torch.set_num_threads(params.threads)
    encoder = open_torch_encoder(named.trained(), torch.device("cpu"))
    studied = open_study_database(named.dataset)
    database = studied if index is None else open_database(named.dataset, index)
    return Trained(params, named, encoder, studied, database)
