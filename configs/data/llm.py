"""The group `config.llm` of the data configs: how a language model is asked for evidence. No data set by itself.

Keys come from the environment: OPENAI_API_KEY (openai), GEMINI_API_KEY (genai, gemini); local servers may want none.
"""

from ml_collections import ConfigDict


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = ConfigDict()
    config.model = ""  # As the endpoint calls it.
    config.base_url = ""  # http://localhost:8000/v1 for vLLM; "" is the vendor's own. Local ones are never proxied.
    config.temperature = 0.0  # 0 gives the same reply each time, as far as the server can; -1: not sent.
    config.max_tokens = 0  # Of a reply, reasoning included; 0: 4096 for evidence, 1024 for labels.
    config.timeout = 120.0  # Seconds for one request.
    config.structured = "json_schema"  # How the server is asked for the form: json_schema, json_object or none.
    config.concurrency = 8  # Requests at a time.
    config.requests_per_minute = 0.0  # 0: no limit.
    config.tokens_per_minute = 0.0  # 0: no limit.
    config.attempts = 6  # Of a request that fails for the moment (429, 5xx, timeout, lost connection).
    config.asks = 2  # Questions until a reply can be used; then it is quarantined.
    config.max_runs = 3  # Runs in which a report gets no reply; then it is quarantined. Raise it to ask once more.
    config.max_cost = 0.0  # In the price table's currency, earlier runs included; 0: no limit.
    config.prices = ""  # Your own price table, like data_prep/extract/llm/prices.json.
    config.cache = ""  # File of the replies; "": OUT.replies.sqlite beside the data set.
    config.batch = False  # The Gemini API's batches: half the price, an answer within a day (genai only).
    config.batch_poll = 30.0  # Seconds between looks at them.
    config.attest_data_use = ""  # Who permits sending credentialed reports to a remote endpoint; stored with the data.
    return config
