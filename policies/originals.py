#!/usr/bin/env python3
"""Holds the ticket schemes' vectors against the originals: each URL that a vector expects is made anew by the library that the
scheme is named after, and compared byte for byte; nginx itself judges the links of secure_link.

    python3 -m venv V && V/bin/pip install akamai-edgeauth botocore cryptography
    V/bin/python policies/originals.py            (nginx from Debian's nginx-light or any other nginx package)

The vectors run against the WebAssembly in `cargo nextest run -p segue-policy-host ready_made`; so the two together say that
our URLs are the originals', and that theirs are accepted here.
"""
import datetime
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent


def grants(scheme):
    """Vectors that make a URL, each with the configuration that counts for it."""
    whole = json.loads((HERE / scheme / "vectors.json").read_text())
    for vector in whole["vectors"]:
        if "url" in vector.get("expect", {}):
            yield whole, vector.get("config", whole.get("config", {})), vector


def edgeauth(whole, config, grant):
    from akamai.edgeauth import EdgeAuth

    options = dict(grant.get("options", []))
    maker = EdgeAuth(
        token_name=config.get("name", "__token__"),
        key=whole["keys"][config["key"]].removeprefix("hex:"),
        algorithm=config.get("algorithm", "sha256"),
        salt=config.get("salt"),
        ip=grant.get("address"),
        payload=options.get("payload"),
        session_id=grant.get("session"),
        start_time=grant.get("not_before"),
        end_time=grant["expires"],
        escape_early=config.get("escape_early", False),
    )
    path = urllib.parse.urlsplit(grant["url"]).path
    scope = grant.get("scope")
    token = maker.generate_acl_token(scope + "*") if scope else maker.generate_url_token(path)
    separator = "&" if "?" in grant["url"] else "?"
    return f"{grant['url']}{separator}{maker.token_name}={token}"


def cloudfront(whole, config, grant):
    from botocore.signers import CloudFrontSigner
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    pair = config["key_pair"]
    key = serialization.load_pem_private_key(whole["keys"][config["keys"][pair]].encode(), None)
    signer = CloudFrontSigner(pair, lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA1()))
    moment = lambda seconds: seconds and datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    end, start, scope = moment(grant["expires"]), moment(grant.get("not_before")), grant.get("scope")
    if not (scope or start or grant.get("address")):
        return signer.generate_presigned_url(grant["url"], date_less_than=end)
    parts = urllib.parse.urlsplit(grant["url"])
    resource = f"{parts.scheme}://{parts.netloc}{scope}*" if scope else grant["url"]
    policy = signer.build_policy(resource, end, start, grant.get("address"))
    return signer.generate_presigned_url(grant["url"], policy=policy)


def nginx_accepts(config, secret, url):
    """Whether nginx serves this URL, and refuses it with one letter of its path changed."""
    expression = config.get("expression", "$secure_link_expires$uri$remote_addr $secret").replace("$secret", secret)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        text = f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
          uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          server {{ listen 127.0.0.1:{port}; location / {{
            secure_link $arg_{config.get("md5", "md5")},$arg_{config.get("expires", "expires")}; secure_link_md5 "{expression}";
            if ($secure_link = "") {{ return 403; }} if ($secure_link = "0") {{ return 410; }} return 200; }} }} }}"""
        pathlib.Path(folder, "nginx.conf").write_text(text)
        server = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL)
        try:
            parts = urllib.parse.urlsplit(url)
            here = lambda path: status(f"http://127.0.0.1:{port}{path}?{parts.query}")
            return here(parts.path) == 200 and here(parts.path[:-1] + "~") == 403
        finally:
            server.terminate()
            server.wait()


def status(url):
    for _ in range(200):
        try:
            return urllib.request.urlopen(url).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.05)
    raise SystemExit("nginx did not start")


def main():
    # botocore reads its time zone from here.
    os.environ["TZ"] = "UTC"
    wrong = 0
    for scheme, original in (("edgeauth", edgeauth), ("cloudfront", cloudfront)):
        for whole, config, vector in grants(scheme):
            if config.get("sha256") or config.get("ecdsa"):
                continue
            made = original(whole, config, vector["grant"])
            same = made == vector["expect"]["url"]
            wrong += not same
            print(f"{'same ' if same else 'WRONG'} {scheme}: {vector['name']}")
            if not same:
                print(f"  original {made}\n  ours     {vector['expect']['url']}")
    for whole, config, vector in grants("secure-link"):
        accepted = nginx_accepts(config, whole["keys"][config["key"]], vector["expect"]["url"])
        wrong += not accepted
        print(f"{'accepted' if accepted else 'REFUSED'} by nginx: {vector['name']}")
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
