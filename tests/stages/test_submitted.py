"""An attack that others sent is data: admitted, recorded as plain values, and run as any other."""

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from immunax.attacks.prune import Prune
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.runtime.admission import admit
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError
from immunax.runtime.launch import composed
from immunax.stages.submitted import MEMBERS, spec, with_submitted
from immunax.stages.suite import Suite

PRUNE = {"_target_": "immunax.attacks.prune.Prune", "sparsity": 0.5}


SFT, SUBMITTED = "immunax.attacks.harmful_sft.HarmfulSFT", "immunax.stages.submitted.Submitted"


def sent(folder, node):
    path = folder / "theirs.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


@pytest.fixture(scope="module")
def base():
    return composed("certify", ["suite=smoke", "model=organism", "seed=3"])


def certify(base, path):
    """A suite with one more family."""
    attacks = {**base.plain["suite"]["attacks"], "theirs": {"_target_": SUBMITTED, "file": str(path)}}
    return base.with_values({"suite.attacks": attacks})


def test_an_attack_of_a_file_is_one_more_family_of_a_suite_with_its_values_in_the_configuration(tmp_path, base):
    config = with_submitted(certify(base, sent(tmp_path, PRUNE)))
    node = config.plain["suite"]["attacks"]["theirs"]
    assert node == {"_target_": "immunax.campaign.grid.Population", "attack": PRUNE, "grid": {}, "seeds": [3]}
    assert str(tmp_path) not in str(config.plain["suite"])
    suite = config.build("suite")
    assert suite.attacks["theirs"] == Population(Prune(0.5), {}, [3])
    # A replay is given the certificate alone.
    assert admit(config.plain["suite"], Suite, "it") == suite


def test_a_population_and_a_search_are_such_files_too(tmp_path, base):
    population = {"_target_": "immunax.campaign.grid.Population", "attack": PRUNE, "grid": {"sparsity": [0.1]}}
    tuned = {"_target_": "immunax.campaign.grid.Population", "attack": {"_target_": SFT}, "grid": {"samples": [4, 8]}}
    search = {"_target_": "immunax.campaign.search.Search", "populations": {"one": tuned}}
    assert isinstance(spec(sent(tmp_path, search))[1], Search)
    config = with_submitted(certify(base, sent(tmp_path, population)))
    assert config.plain["suite"]["attacks"]["theirs"] == population


def test_every_attack_that_ships_but_those_that_read_files_may_be_submitted(tmp_path):
    names = {path.stem for path in (configuration_folder() / "attack").glob("*.yaml")} - {"submitted"}
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        every = compose("attack", [f"+attack@all.{name}={name}" for name in sorted(names)]).all
    refused = set()
    for name, node in OmegaConf.to_container(every, resolve=True).items():
        try:
            spec(sent(tmp_path, node))
        except UserError:
            refused.add(name)
    assert refused == {"durability_aoa"}


def test_one_attack_is_run_by_its_files_name_and_a_population_is_not(tmp_path):
    config = composed("attack", ["+attack=submitted", f"attack.file={sent(tmp_path, PRUNE)}"])
    assert with_submitted(config).build("attack") == Prune(0.5)
    sent(tmp_path, {"_target_": "immunax.campaign.grid.Population", "attack": PRUNE})
    with pytest.raises(UserError, match="has a population, of which none is run here"):
        with_submitted(config)


def test_a_grid_has_as_many_members_as_are_run_for_others_and_no_more(tmp_path):
    grid = {"_target_": "immunax.campaign.grid.Population", "attack": PRUNE}
    values = [number / (MEMBERS + 2) for number in range(1, MEMBERS + 2)]
    spec(sent(tmp_path, {**grid, "grid": {"sparsity": values[:-1]}}))
    with pytest.raises(UserError, match=f"has {MEMBERS + 1} members, more than {MEMBERS}"):
        spec(sent(tmp_path, {**grid, "grid": {"sparsity": values}}))


def test_a_configuration_without_such_an_attack_stays_as_it_is(base):
    assert with_submitted(base).plain == base.plain
