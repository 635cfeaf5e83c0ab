"""Events that wait to be published, beside the users that they are about."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "outbox",
        sa.Column("position", _serial, primary_key=True, autoincrement=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("claimed_until", sa.Float, nullable=False, server_default="0"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("outbox")
