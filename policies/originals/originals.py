#!/usr/bin/env python3
"""What the ticket schemes are held against: the original libraries, and nginx itself.

Reads one JSON object a line and answers one a line, in the same order; `policies/host/tests/originals.rs` asks.

    {"do": "make", "scheme": S, "config": C, "keys": K, "grant": G}              -> {"url": what the original makes}
    {"do": "judge", "scheme": S, "config": C, "keys": K, "grant": G, "url": U}   -> {"accepted": B, "altered": B}

`accepted`: whether the original accepts U. `altered`: whether it accepts U with another path, which it must not.
Schemes: edgeauth and cloudfront are made; cloudfront with ECDSA and secure-link are judged (an ECDSA signature is another one each time,
and secure_link has no library, only nginx).
"""
import base64
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


def edgeauth(asked):
    from akamai.edgeauth import EdgeAuth

    config, grant = asked["config"], asked["grant"]
    maker = EdgeAuth(
        token_name=config.get("name", "__token__"),
        key=asked["keys"][config["key"]].removeprefix("hex:"),
        algorithm=config.get("algorithm", "sha256"),
        salt=config.get("salt"),
        ip=grant.get("address"),
        payload=dict(grant.get("options", [])).get("payload"),
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


def signer(asked):
    """botocore's signer, with the key and the hash of the configuration."""
    from botocore.signers import CloudFrontSigner
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding

    config = asked["config"]
    pair = config["key_pair"]
    key = serialization.load_pem_private_key(asked["keys"][config["keys"][pair]].encode(), None)
    digest = hashes.SHA256() if config.get("sha256") else hashes.SHA1()
    how = (ec.ECDSA(digest),) if config.get("ecdsa") else (padding.PKCS1v15(), digest)
    return CloudFrontSigner(pair, lambda data: key.sign(data, *how)), key.public_key(), how


def cloudfront(asked):
    grant = asked["grant"]
    maker, _, _ = signer(asked)
    end, policy = moment(grant["expires"]), custom_policy(maker, grant)
    url = maker.generate_presigned_url(grant["url"], **({"policy": policy} if policy else {"date_less_than": end}))
    # botocore knows nothing of this parameter, which stands for the hash in CloudFront.
    return url + ("&Hash-Algorithm=SHA256" if asked["config"].get("sha256") else "")


def moment(seconds):
    return seconds and datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def custom_policy(maker, grant):
    """The policy of a grant that needs a custom one."""
    start, scope = moment(grant.get("not_before")), grant.get("scope")
    if not (scope or start or grant.get("address")):
        return None
    parts = urllib.parse.urlsplit(grant["url"])
    resource = f"{parts.scheme}://{parts.netloc}{scope}*" if scope else grant["url"]
    return maker.build_policy(resource, moment(grant["expires"]), start, grant.get("address"))


def cloudfront_accepts(asked, alter):
    """Whether the signature in the URL holds over the policy that botocore makes of the same grant."""
    from cryptography.exceptions import InvalidSignature

    grant = asked["grant"]
    maker, public, how = signer(asked)
    resource = grant["url"] + ("x" if alter else "")
    policy = custom_policy(maker, grant | {"url": resource}) or maker.build_policy(resource, moment(grant["expires"]))
    if alter and grant.get("scope"):
        policy = policy.replace(grant["scope"], grant["scope"] + "x")
    shown = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(asked["url"]).query))
    signature = base64.b64decode(shown["Signature"].translate(str.maketrans("-_~", "+=/")))
    try:
        public.verify(signature, policy.encode(), *how)
        return True
    except InvalidSignature:
        return False


def secure_link_accepts(asked, alter):
    config, parts = asked["config"], urllib.parse.urlsplit(asked["url"])
    secret = asked["keys"][config["key"]]
    expression = config.get("expression", "$secure_link_expires$uri$remote_addr $secret").replace("$secret", secret)
    if config.get("prefix"):
        expression = expression.replace("$uri", "$folder")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        text = f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
          uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          map $uri $folder {{ ~^(?<up>.*/) $up; }}
          server {{ listen 127.0.0.1:{port}; location / {{
            secure_link $arg_{config.get("md5", "md5")},$arg_{config.get("expires", "expires")}; secure_link_md5 "{expression}";
            if ($secure_link = "") {{ return 403; }} if ($secure_link = "0") {{ return 410; }} return 200; }} }} }}"""
        pathlib.Path(folder, "nginx.conf").write_text(text)
        server = subprocess.Popen(["nginx", "-p", folder, "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL)
        try:
            # A prefix opens what lies beside, so another folder is asked for.
            path = parts.path if not alter else "/x" + parts.path
            return status(f"http://127.0.0.1:{port}{path}?{parts.query}", parts.netloc, server) == 200
        finally:
            server.terminate()
            server.wait()


def status(url, host, server):
    for _ in range(600):
        try:
            return urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            if server.poll() is not None:
                raise SystemExit(f"nginx ended at its start, status {server.returncode}")
            time.sleep(0.05)
    raise SystemExit("nginx did not start within half a minute")


MAKERS = {"edgeauth": edgeauth, "cloudfront": cloudfront}
JUDGES = {"cloudfront": cloudfront_accepts, "secure-link": secure_link_accepts}


def main():
    # botocore reads its time zone from here.
    os.environ["TZ"] = "UTC"
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "make":
            answer = {"url": MAKERS[asked["scheme"]](asked)}
        else:
            judge = JUDGES[asked["scheme"]]
            answer = {"accepted": judge(asked, False), "altered": judge(asked, True)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
