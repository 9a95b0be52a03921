import pickle

import pytest

from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig


def test_a_dict_with_checks():
    env = RuntimeEnv(env_vars={"A": "1"}, config=RuntimeEnvConfig(setup_timeout_seconds=30), pip=None)
    assert set(env) == {"env_vars", "config"}
    assert env["config"]["setup_timeout_seconds"] == 30
    assert RuntimeEnv.deserialize(env.serialize()) == env
    assert pickle.loads(pickle.dumps(env)) == env
    env.set("env_vars", None)
    assert env.env_vars() == {}
    assert RuntimeEnv(mine=1).plugins() == [("mine", 1)]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"env_vars": {"A": 1}}, TypeError),
        ({"env_vars": ["A"]}, TypeError),
        ({"working_dir": 5}, TypeError),
        ({"py_modules": "m"}, TypeError),
        ({"excludes": "m"}, TypeError),
        ({"pip": 1}, TypeError),
        ({"pip": {"packages": [], "unknown": 1}}, ValueError),
        ({"pip": {}}, ValueError),
        ({"pip": ["x"], "conda": "y"}, ValueError),
        ({"pip": ["x"], "uv": ["y"]}, ValueError),
        ({"image_uri": "i", "pip": ["x"]}, ValueError),
        ({"container": "i"}, TypeError),
        ({"config": 1}, TypeError),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError),
    ],
)
def test_bad_fields(fields, error):
    with pytest.raises(error):
        RuntimeEnv(**fields)


def test_bad_config():
    for bad in (0, -2):
        with pytest.raises(ValueError, match="setup_timeout_seconds"):
            RuntimeEnvConfig(setup_timeout_seconds=bad)
    assert RuntimeEnvConfig(setup_timeout_seconds=-1)["setup_timeout_seconds"] == -1
    assert RuntimeEnvConfig.default_config() == {"setup_timeout_seconds": 600, "eager_install": True, "log_files": []}


def test_fields_are_told_one_by_one():
    env = RuntimeEnv(working_dir="s3://bucket/code.zip", pip=["numpy"], image_uri=None, java_jars=["a.jar"], mine=1)
    assert env.working_dir_uri() == "s3://bucket/code.zip" and RuntimeEnv(working_dir="/here").working_dir_uri() is None
    assert env.pip_config() == {"packages": ["numpy"]} and env.uv_config() == {} and env.virtualenv_name() is None
    assert RuntimeEnv(pip="requirements.txt").virtualenv_name() == "requirements.txt"
    assert RuntimeEnv(conda="base").conda_env_name() == "base" and RuntimeEnv(conda="base").conda_config() is None
    assert RuntimeEnv(conda={"dependencies": []}).conda_config() == '{"dependencies": []}'
    assert env.java_jars() == ["a.jar"] and env.image_uri() is None and env.plugin_uris() == []
    assert env.plugins() == [("mine", 1)] and RuntimeEnv(_ray_commit="x").plugins() == []
    assert RuntimeEnv(_ray_commit="x").get_extension("_ray_commit") == "x"
    with pytest.raises(ValueError, match="Extension key"):
        env.get_extension("pip")
    inside = RuntimeEnv(container={"image": "i", "run_options": ["-t"]})
    assert inside.has_py_container() and inside.py_container_image() == "i"
    assert inside.py_container_run_options() == ["-t"] and env.py_container_run_options() is None
