"""Options of launchers that the schemas of their packages lack."""

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from resnet_cli.hydra_app.plugins import add_launcher_options


def test_options_join_a_launchers_schema_without_storing_a_second_config_of_its_name(monkeypatch):
    """Hydra 1.4 warns of a second one, and 1.5 will refuse it."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    Plugins.instance()
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    own = {key: value for key, value in launchers["joblib.yaml"].node.items() if key not in ("gpus", "jobs_per_gpu")}
    bare = type(launchers["joblib.yaml"].node)(own)
    monkeypatch.setattr(launchers["joblib.yaml"], "node", bare)
    monkeypatch.setattr(ConfigStore, "store", lambda *arguments, **options: pytest.fail("stored again"))
    add_launcher_options()
    node = launchers["joblib.yaml"].node
    assert (node.gpus, node.jobs_per_gpu, node._target_) == (None, 1, own["_target_"])
