"""What tests of several folders share."""

import pytest


class Authority:
    """A certificate authority, and the files that it has issued; elliptic keys, so it takes milliseconds."""

    def __init__(self, folder):
        import trustme  # noqa: PLC0415 - few tests need it

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._ca = trustme.CA()
        self.root = self._write("root.pem", self._ca.cert_pem.bytes())

    def _write(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def issue(self, name, *identities, **options):
        """Write `name`.pem and `name`.key, over those that are there, and return their paths."""
        issued = self._ca.issue_cert(*(identities or ("127.0.0.1", "::1", "localhost")), **options)
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        return self._write(f"{name}.pem", chain), self._write(f"{name}.key", issued.private_key_pem.bytes())


@pytest.fixture
def authority(tmp_path):
    """The authority that everybody trusts."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path):
    """An authority that nobody was told of."""
    return Authority(tmp_path / "stranger")
