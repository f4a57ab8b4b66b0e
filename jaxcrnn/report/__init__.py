"""What a run or a comparison shows: tables, pages, charts."""
