"""NGINX alone, which passes everything on and knows nothing of what it is: what a token costs at the least.

The same program costs twice as much on another machine, or on this one in another hour. What a gateway takes is told
apart from that by the ratio of both, measured in one run.
"""

import contextlib
import os
from collections.abc import Iterator

from loadtests.bench.ports import free_ports
from loadtests.bench.system import Site, System, running

NGINX_CONF = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port};
    location = /readyz {{ return 200; }}
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def yardstick(site: Site, origin_port: int) -> Iterator[System]:
    """One NGINX process before the origin."""
    (port,) = free_ports(1)
    conf = site.state / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    conf.write_text(user + NGINX_CONF.format(folder=site.state, origin=origin_port, port=port))
    command = ["nginx", "-p", str(site.state), "-c", str(conf), "-e", "stderr"]
    with running(site, command, os.environ, port) as process:
        yield System(port, process.pid)
