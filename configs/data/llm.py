"""The group `config.llm` of the data configs: how a language model is asked for evidence. No data set by itself.

Keys come from the environment: OPENAI_API_KEY (openai), GEMINI_API_KEY (genai, gemini); local servers may want none.
"""

from ml_collections import ConfigDict


def get_config(arg=None):
    """`arg` is not used."""
    del arg
    config = ConfigDict()
    config.model = ""  # As the endpoint calls it; local: a GGUF file.
    config.base_url = ""  # http://localhost:8000/v1 for vLLM; "" is the vendor's own. Local ones are never proxied.
    config.temperature = 0.0  # 0 gives the same reply each time, as far as the server can; -1: not sent.
    config.max_tokens = 0  # Of a reply, reasoning included; 0: 4096 for evidence, 1024 for labels.
    config.timeout = 120.0  # Seconds for one request; local: no limit.
    config.structured = "json_schema"  # How the server is asked for the form: json_schema, json_object or none.
    config.concurrency = 8  # Requests at a time; local: 1, or at most 4 on a GPU.
    config.requests_per_minute = 0.0  # 0: no limit.
    config.tokens_per_minute = 0.0  # 0: no limit.
    config.attempts = 6  # Of a request that fails for the moment (429, 5xx, timeout, lost connection).
    config.asks = 2  # Questions until a reply can be used; then it is quarantined.
    config.max_runs = 3  # Runs in which a report gets no reply; then it is quarantined. Raise it to ask once more.
    config.max_cost = 0.0  # In the price table's currency, earlier runs included; 0: no limit.
    config.prices = ""  # Your own price table, like data_prep/extract/llm/prices.json.
    config.cache = ""  # File of the replies; "": OUT.replies.sqlite beside the data set.
    config.prompt = ""  # Your own prompt, a text with {findings} in it; prompt.{language}.txt is one per language.
    config.examples = ""  # Reports with right answers, FILE.jsonl, or one per language as above.
    config.votes = 1  # Passes over each report, each with its own seed; what most state counts. Needs a temperature.
    config.part_tokens = 2000  # A longer report is asked about in overlapping parts of so many tokens; 0: never.
    config.sample = -1  # Reports that --dry_run asks about to measure the speed; -1: 10 for local, 0 for servers.
    config.batch = False  # Batches of the API (genai, openai): half the price, an answer within a day.
    config.batch_poll = 30.0  # Seconds between looks at them.
    config.exchange = ""  # openai: a folder of questions and answers as files, for vLLM's offline run-batch.
    config.threads = 0  # local: CPU threads; 0: the cores that the process may use.
    config.gpu_layers = -1  # local: layers on the GPU (of a build of xllamacpp for it); -1: all that fit.
    config.context = 8192  # local: tokens of prompt, report and reply together. Memory grows with it.
    config.attest_data_use = ""  # Who permits sending credentialed reports to a remote endpoint; stored with the data.
    return config
