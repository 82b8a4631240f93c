"""The asyncio service that runs studies, and the supervisor that runs it beside a bundled server."""
