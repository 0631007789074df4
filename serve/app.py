"""What `serve deploy serve/config.yaml` and `rankmill serve` deploy: a gateway, and a scorer per model.

`build` runs where the command runs, or in a task of the cluster: it reads the models' files, pins their revisions and
refuses what cannot be served, before any replica starts.
"""

from ray.serve import Application

from rankmill.serving.application import application
from rankmill.serving.index import index_of
from rankmill.serving.models import models_of
from rankmill.settings.serve import EndpointSettings


def build(settings: EndpointSettings) -> Application:
    """Put the application together; a misspelled key in config.yaml is an error."""
    return application(settings, models_of(settings), index_of(settings))
