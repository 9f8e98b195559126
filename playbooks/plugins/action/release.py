"""`release`, controller's side: ask whether the release is there; only if not, ship the archive and have it unpacked."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        version = self._task.args["version"]
        asked = self._execute_module("release", {"version": version, "archive": ""}, task_vars=task_vars)
        if asked.get("failed") or asked["there"]:
            return {**result, **asked}
        if self._task.check_mode:
            return {**result, "changed": True, "items": [f"/opt/mobula/{version}"]}
        remote = self._connection._shell.join_path(self._make_tmp_path(), "release.tar.gz")
        self._transfer_file(self._task.args["archive"], remote)
        return {
            **result,
            **self._execute_module("release", {"version": version, "archive": remote}, task_vars=task_vars),
        }
