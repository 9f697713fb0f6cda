"""The tour for first visitors: five steps through the pages, on real data."""
