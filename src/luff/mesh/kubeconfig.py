"""
How to reach an API server: the kubeconfig, read whole and anew each time.

What must stay true: whatever is wrong with it, half written, not text, a token
that no header can carry, a plugin that is not there, is a `MeshError` with the
file's name in it, and never a line of the client library on stderr. No
certificate or key is written where it has a name: that would stay after a kill.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.dateutil import parse_rfc3339
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger
from urllib3.util.ssl_ import create_urllib3_context

from luff.errors import MeshError

__all__ = ["Connection", "client_of", "current_context", "has_certificate", "kubectl"]

DEFAULT_PLACE = "~/.kube/config"
LOG_IN_WITHIN_S = 180.0
"""How long a credential plugin may take at first: a person may be signing in."""
RENEW_WITHIN_S = 20.0
"""The same while a fault may be live: calls wait for it."""
SAID_SHOWN = 300
"""Characters of what a plugin said that an error message repeats."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Connection:
    """
    This is how to reach one API server, small enough to hand to another process.

    *kubeconfig* is a file, or ``None`` for the default ones; *context* one of
    its contexts, or ``None`` for the current one.
    """

    kubeconfig: str | None
    context: str | None
    kind: Literal["lab", "cluster"] = "cluster"


def current_context(kubeconfig: str | None) -> str | None:
    """Return the name of the kubeconfig's current context, or ``None`` when there is no usable kubeconfig."""
    try:
        _, current = config.list_kube_config_contexts(config_file=_place(kubeconfig))
        return str(current["name"]) if current else None
    except Exception:
        # The client checks little of what it reads; whatever trips it up is a file that cannot be used.
        return None


def kubectl(connection: Connection) -> str:
    """Return how kubectl is called for the same server."""
    file, context = connection.kubeconfig, connection.context
    words = ["kubectl", *(["--kubeconfig", file] if file else []), *(["--context", context] if context else [])]
    return shlex.join(words)


def client_of(connection: Connection, *, connections: int, renewing: bool = False) -> client.ApiClient:
    """
    Return a client for what the kubeconfig says now, with at most so many *connections*.

    Raises `MeshError` when it is unusable. While *renewing*, a credential
    plugin gets 20 s instead of three minutes.
    """
    try:
        return _client(connection, connections, renewing=renewing)
    except Exception as error:
        # The client checks little of what it reads: bad base64, odd types and codecs come as whatever they raise.
        asked = f" with the context {connection.context}" if connection.context else ""
        step = "name a kubeconfig with --kubeconfig or KUBECONFIG, or run against a lab with --lab"
        if isinstance(error, _PluginFailed):
            step = error.next_step
        raise MeshError(
            f"{_place(connection.kubeconfig)}{asked} cannot be used: {str(error) or type(error).__name__}",
            next_step=step,
        ) from error


def has_certificate(api: client.ApiClient) -> bool:
    """Return whether *api* shows a client certificate, of which nobody can tell by looking whether it was renewed."""
    return bool(api.configuration.cert_file) or "ssl_context" in api.rest_client.pool_manager.connection_pool_kw


def _client(connection: Connection, connections: int, *, renewing: bool) -> client.ApiClient:
    merged = KubeConfigMerger(_place(connection.kubeconfig))
    if merged.config is None:
        raise ConfigException("there is no such file")
    loader = _Loader(
        merged.config,
        active_context=connection.context,
        config_base_path=None,
        config_persister=merged.save_changes,
    )
    loader.plugin_within_s = RENEW_WITHIN_S if renewing else LOG_IN_WITHIN_S
    configuration = client.Configuration()
    loader.load_and_set(configuration)
    # When its credentials have expired, it is asked again in the middle of a call.
    loader.plugin_within_s = RENEW_WITHIN_S
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = connections
    if (urlsplit(configuration.host or "").hostname or "") in _LOOPBACK:
        # The client would send loopback addresses through HTTP_PROXY; kubectl never does.
        configuration.proxy = None
    context = loader.tls_context()
    api = client.ApiClient(configuration)
    if context is not None:
        api.rest_client.pool_manager.connection_pool_kw["ssl_context"] = context
    return api


def _place(kubeconfig: str | None) -> str:
    return kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_PLACE


class _PluginFailed(ConfigException):  # type: ignore[misc]  # the client library is not typed
    """This is a credential plugin that gave no credentials."""

    def __init__(self, message: str, *, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class _Pem:
    """This is a certificate or a key: what it says, or the file that says so."""

    text: str | None = None
    file: str | None = None

    @contextmanager
    def path(self) -> Iterator[str]:
        """Return a path to read it at, for the life of the body; what is in memory gets a file without a name."""
        if self.text is None:
            assert self.file is not None
            yield self.file
            return
        with tempfile.TemporaryFile() as nameless:
            nameless.write(self.text.encode())
            nameless.seek(0)
            yield f"/dev/fd/{nameless.fileno()}"


def _pem(node: Any, name: str, folder: str) -> _Pem | None:
    """Return what *node* of a kubeconfig says of *name*: in its ``-data``, which comes first, or in a file below *folder*."""
    if not node:
        return None
    if data := node.safe_get(f"{name}-data"):
        # Between the certificates of a file anything may stand, in any encoding.
        return _Pem(text=base64.standard_b64decode(data).decode("ascii", errors="ignore"))
    if not (file := node.safe_get(name)):
        return None
    path = Path(folder, file)
    if not path.is_file():
        raise ConfigException(f"there is no file {path}, its {name}")
    return _Pem(file=str(path))


class _Loader(KubeConfigLoader):  # type: ignore[misc]  # the client library is not typed
    """
    This reads as the client does, with three differences.

    A token keeps no white space around it (files end with a newline, and a
    header cannot). A credential plugin that fails is an error, has a time
    limit, and never reads from our standard input, which may be the guard's
    pipe; the client would log a line and go on without credentials. What the
    kubeconfig or a plugin holds as text stays in memory; the client would
    write it, keys as well, into files that go only when a process ends well.
    """

    authority: str | None = None
    certificate: _Pem | None = None
    key: _Pem | None = None
    plugin_within_s = LOG_IN_WITHIN_S

    def _load_authentication(self) -> None:
        super()._load_authentication()
        token = self.__dict__.get("token")
        if isinstance(token, str):
            self.token = token.strip()
            if not (self.token.isascii() and self.token.isprintable()):
                raise ConfigException("the token has characters that no HTTP header can carry")

    def _load_cluster_info(self) -> None:
        folder = self._get_base_path(self._cluster.path)
        authority = _pem(self._cluster, "certificate-authority", folder)
        certificate = self.certificate or _pem(self._user, "client-certificate", folder)
        key = self.key or _pem(self._user, "client-key", folder)
        if authority is not None:
            self.authority, self.ssl_ca_cert = authority.text, authority.file
        if any(each is not None and each.text is not None for each in (certificate, key)):
            self.certificate, self.key = certificate, key
        elif certificate is not None:
            self.cert_file, self.key_file = certificate.file, None if key is None else key.file
        self.host = self._cluster["server"].rstrip("/")
        self.verify_ssl = not self._cluster.safe_get("insecure-skip-tls-verify")
        for attribute, name in (("tls_server_name", "tls-server-name"), ("proxy", "proxy-url")):
            # What is not said is not set: the client looks for a proxy in the environment then.
            if name in self._cluster:
                setattr(self, attribute, self._cluster[name])

    def _set_config(self, configuration: client.Configuration) -> None:
        super()._set_config(configuration)
        configuration.ca_cert_data = self.authority

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what shows a client certificate that is in memory; ``None`` without one."""
        if self.certificate is None:
            return None
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if self.verify_ssl else ssl.CERT_NONE)
        if self.authority is None and not self.__dict__.get("ssl_ca_cert"):
            context.load_default_certs()
        with self.certificate.path() as certificate, (self.key or self.certificate).path() as key:
            # Without a password an encrypted key would ask the terminal for one.
            context.load_cert_chain(certificate, key, password="")
        return context

    def _load_from_exec_plugin(self) -> bool | None:
        if "exec" not in self._user:
            return None
        status = self._plugin_status(self._user["exec"])
        if "token" in status:
            self.token = f"Bearer {status['token']}"
        elif "clientCertificateData" in status and "clientKeyData" in status:
            self.certificate, self.key = _Pem(text=status["clientCertificateData"]), _Pem(text=status["clientKeyData"])
        else:
            raise _plugin_failed(str(self._user["exec"]["command"]), "gave neither a token nor a certificate with key")
        if "expirationTimestamp" in status:
            self.expiry = parse_rfc3339(status["expirationTimestamp"])
        return True

    def _plugin_status(self, plugin: Any) -> dict[str, Any]:
        """Run the plugin and return the ``status`` of the ExecCredential that it prints."""
        command, folder = str(plugin["command"]), self._get_base_path(self._cluster.path)
        added = {each["name"]: each["value"] for each in plugin.safe_get("env") or []}
        interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        spec: dict[str, Any] = {"interactive": interactive}
        if plugin.safe_get("provideClusterInfo"):
            spec["cluster"] = _cluster_info(self._cluster.value)
        asked = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
        try:
            done = subprocess.run(
                [command, *(plugin.safe_get("args") or [])],
                env={**os.environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
                cwd=folder or None,
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                timeout=self.plugin_within_s,
                text=True,
                check=False,
            )
        except OSError as error:
            missing = shutil.which(command) is None
            raise _plugin_failed(command, "is not installed" if missing else f"cannot be started: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise _plugin_failed(command, f"did not end within {self.plugin_within_s:.0f} s") from error
        if done.returncode:
            said = (done.stderr or "").strip()[:SAID_SHOWN]
            raise _plugin_failed(command, f"ended with {done.returncode}" + (f": {said}" if said else ""))
        return _credential(command, done.stdout)


def _cluster_info(cluster: dict[str, Any]) -> dict[str, Any]:
    named = {each.get("name"): each.get("extension") for each in cluster.get("extensions") or []}
    extension = named.get("client.authentication.k8s.io/exec")
    return {**cluster, **({} if extension is None else {"config": extension})}


def _credential(command: str, text: str) -> dict[str, Any]:
    try:
        status = json.loads(text)["status"]
    except (ValueError, KeyError, TypeError) as error:
        raise _plugin_failed(command, "did not print an ExecCredential") from error
    if not isinstance(status, dict):
        raise _plugin_failed(command, "did not print an ExecCredential")
    return status


def _plugin_failed(command: str, what: str) -> _PluginFailed:
    return _PluginFailed(
        f"the credential plugin {command} {what}",
        next_step=f"see that `{command}` is on the PATH and works by itself; kubectl needs it too",
    )
