"""The HTTP service: predictions for other programs, and a page where people review the doubtful.

Nothing here is imported before `trustvlm serve` runs; FastAPI and uvicorn come with the extra
`serve`.
"""
