"""Every key of a training config, with its default and its reason. Experiments start from here and change some.

    python -m lgdea_jax.train --config=configs/NAME.py --workdir=RUN --config.KEY=VALUE
"""

from ml_collections import ConfigDict


def layer_rates(tower, depth, *, decay, frozen=0):
    """`optim.rates` of a transformer tower: each block learns `decay` times as fast as the one after it.

    Args:
      tower: "image_tower" or "text_tower".
      depth: number of its blocks.
      decay: factor from one block to the one before.
      frozen: the embedding and this many blocks do not learn at all.
    """
    rules = [f"^{tower}/blocks/{block}/={0.0 if block < frozen else round(decay ** (depth - 1 - block), 4)}"
             for block in range(depth)]
    embedding = 0.0 if frozen else round(decay**depth, 4)
    return (*rules, f"^{tower}/(stem|position|cls|registers|input_norm|embeddings)={embedding}")


def get_config(arg=None):
    """The base config; it names no data."""
    config = ConfigDict()
    config.method = "lgdea"  # A file of lgdea_jax/methods.
    config.seed = 0
    config.total_steps = 1000
    config.dtype = "float32"  # Of matrix products: float32 or bfloat16. Parameters and losses stay float32.
    config.dry_run = False  # Say what a step would cost on the devices at hand, without data, and stop.
    # Rows of the scores that a contrastive loss makes at a time, on each device; 0 makes all. The values are the
    # same; the memory is linear in the batch instead of quadratic (losses/chunked.py). Pays from thousands of pairs on.
    config.loss_chunk = 0
    config.init_from = ""  # A run whose parameters to start from ...
    config.init_parts = ()  # ... all of them, or these modules, e.g. image_tower.

    config.data = ConfigDict()
    config.data.dir = ""  # One data set written by data_prep.build, or:
    config.data.pairs_from = ()  # DIR or DIR:WEIGHT, several by commas.
    config.data.images_from = ()
    config.data.reports_from = ()
    config.data.held_out_from = ()  # Data sets that are evaluated on only: all their splits are checked for leaks.
    config.data.make_from = ""  # A config of data_prep.build to make a missing data.dir with (phantom only).
    config.data.split = "train"
    config.data.pairs = 1.0  # Studies that stay paired: a share (<= 1) or a number (> 1); the rest is unpaired.
    # Templated normal reports are equal in good faith in many hospitals: refuse, drop (from training) or allow.
    config.data.equal_reports = "refuse"
    # Labels to learn from, where a data set has several sets of them: reference, silver (the extractor's) or weak
    # (keywords); "" takes the plain ones, which are the reference. Evaluation always uses the plain ones.
    config.data.labels = ""
    config.data.cache = False  # Keep decoded, tokenised items in memory: for data sets of up to some GB.
    config.data.workers = 0  # Processes that read ahead; 0 reads in threads of this process.
    config.data.threads = 2

    config.batch = ConfigDict()
    config.batch.pairs = 64
    config.batch.images = 0
    config.batch.reports = 0
    # Parts in which the towers go through a batch, one after the other, with the gradients of the whole batch
    # (GradCache, arXiv 2101.06983): the activations of one part are held, the forward pass is done twice.
    config.batch.micro = 1

    config.image = ConfigDict()
    config.image.modality = "xray"  # xray (2D images) or ct (volumes: the keys of config.volume).
    config.image.size = 224
    config.image.mean = 0.5  # Of grey levels in [0, 1].
    config.image.std = 0.25
    config.image.per_image = False  # Normalise each image by its own mean and deviation instead.

    # Volumes (image.modality=ct); lgdea_jax/preprocess/volume.py has the geometries.
    config.volume = ConfigDict()
    config.volume.geometry = ""  # ct_clip, fvlm, phantom_ct: the data set must have been built with the same.
    config.volume.shape = ()  # (depth, height, width) that the model sees; () takes the geometry's.
    config.volume.window = ()  # (low, high) in HU; () takes the geometry's.
    config.volume.random_crop = False  # Where the shape is smaller than the stored volume: crops anywhere in it.
    config.volume.shift = 0.05  # Largest random shift, a share of each side of the shape (augment.enabled).
    config.volume.noise = 0.0  # Largest standard deviation of random noise, in HU (augment.enabled).

    config.text = ConfigDict()
    config.text.tokenizer = ""  # A tokenizer.json or Hugging Face directory; "" takes the data set's own.
    config.text.length = ConfigDict({"report": 128, "evidence": 48, "phrases": 20})  # Tokens a row.
    config.text.phrases = 6
    config.text.uncertain_weight = 0.5  # Of a hedged finding in the report's evidence.
    # Prompts are written in canonical words, reports are not: the text tower should know both.
    config.text.variants = ("verbatim", "canonical")

    config.augment = ConfigDict()
    config.augment.enabled = True
    config.augment.crop = (0.7, 1.0)
    config.augment.aspect = 1.2
    config.augment.rotate = 8.0
    config.augment.gamma = 0.3
    config.augment.contrast = 0.3
    config.augment.brightness = 0.1
    config.augment.noise = 6.0
    config.augment.erase = 0.0

    config.model = ConfigDict()
    config.model.width = 512  # Of the shared space.
    config.model.remat = False  # Recompute the blocks in the backward pass instead of keeping their activations ...
    config.model.remat_keep = "nothing"  # ... but for: nothing, products (without attention's), all_products.
    config.model.prototypes = 256
    config.model.lesion_queries = 8
    config.model.logit_scale = 14.3  # 1 / 0.07, as in CLIP.
    config.model.logit_bias = 0.0  # -10 for clip_sigmoid.
    config.model.image = ConfigDict()
    config.model.image.name = "vit"
    config.model.image.weights = ""  # A local directory or file of published weights to start from (models/pretrained).
    config.model.image.vit = ConfigDict({
        "variant": "B/16", "sizes": {"width": 0, "depth": 0, "heads": 0, "mlp_dim": 0},  # 0 takes the variant's.
        "pool": "gap", "stem": "linear", "attention_window": 0, "position": True, "dropout_rate": 0.0,
        # Of published weights: plain, vit, deit, dinov2, dinov2_registers, openclip or openclip_quickgelu. "" and 0 of
        # the next two take the family's; a projection > 0 is CLIP's last layer.
        "family": "plain", "mlp": "", "eps": 0.0, "projection": 0})
    config.model.image.resnet = ConfigDict({
        "variant": "resnet50", "sizes": {"width": 0}, "stem": "imagenet", "conv": "native",
        "norm": "batch", "pool": "mean", "zero_init": True})
    config.model.image.resnet3d = ConfigDict({  # Of volumes; `conv` is slices (fast on CPU) or native.
        "variant": "resnet18", "sizes": {"width": 0}, "stem": "kinetics", "conv": "native",
        "norm": "instance", "pool": "mean", "zero_init": True})
    config.model.text = ConfigDict()
    config.model.text.name = "bert"
    config.model.text.weights = ""  # The same for text; text.tokenizer is then the tokeniser of those weights.
    config.model.text.bert = ConfigDict({
        "variant": "base", "sizes": {"width": 0, "depth": 0, "heads": 0, "mlp_dim": 0},
        "pool": "cls", "dropout_rate": 0.0,
        "family": "bert", "eps": 0.0,  # bert or roberta; 0 takes the family's.
        "projection": 128})  # Width of pool=projection, CXR-BERT's head.

    # Targets of unpaired images and reports (lgdea, mean_teacher, oracle); see lgdea_jax/training/evidence_memory.py.
    config.memory = ConfigDict()
    config.memory.start = 0.5  # First refresh, a share of the steps: an untrained teacher's errors would be locked in.
    config.memory.refresh = 50  # Steps from one refresh to the next: later teachers know better.
    config.memory.ramp = 3  # Refreshes until the targets have their full weight.
    config.memory.block = 128  # Items of one pass of the teacher, over all devices.
    config.memory.features = "pooled"  # What the graph compares: pooled, features (of the towers) or evidence.
    config.memory.graph = "anchors"  # anchors (linear in the items) or knn.
    config.memory.landmarks = 256  # Anchors of each side, at most as many as items.
    config.memory.top = 32  # Landmarks that an item is assigned to; 0 is all.
    config.memory.neighbours = 16  # Of knn.
    config.memory.temperature = 0.1  # Of the similarities: small links only what is very alike.
    config.memory.alpha = 0.8  # Weight of a further step along the graph.
    config.memory.order = 3  # Steps on either side.
    config.memory.own = 0.5  # Share of the teacher's own evidence in a target: relations alone rest on few pairs.
    config.memory.sharpen = 0.7  # Temperature of the targets: propagation blurs them.
    config.memory.align = 10  # Rounds of alignment to the reports' mean evidence; 0 is none.
    config.memory.confidence = 0.5  # Quantile of the confidences that counts as full.
    config.memory.truth = False  # Read the hidden reports of unpaired images, for the oracle and for diagnostics.

    config.optim = ConfigDict()
    config.optim.schedule = "cosine"
    config.optim.rate = 1e-4
    config.optim.warmup_steps = 100
    config.optim.weight_decay = 0.05
    config.optim.beta1 = 0.9
    config.optim.beta2 = 0.98
    config.optim.clip_norm = 1.0
    config.optim.rates = ()  # PATTERN=MULTIPLIER over parameter paths, first match wins, 0 freezes.
    config.optim.ema = 0.0  # Decay of the averaged parameters that are evaluated; 0 evaluates the trained ones.

    config.mesh = ConfigDict({"data": -1, "fsdp": 1})  # -1 takes what is left.
    config.distributed = ConfigDict({"coordinator": "", "num_processes": 1, "process_id": -1})

    config.eval = ConfigDict()
    config.eval.every = 0  # Steps; 0 evaluates at the end only.
    config.eval.split = "validation"
    config.eval.dir = ""  # "" evaluates on the data set that is trained on.
    config.eval.records = 1000  # At most; 0 is all.
    config.eval.metric = "zero_shot/auroc"  # What makes a checkpoint the best.

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000
    config.checkpoint.keep = 2

    config.log = ConfigDict()
    config.log.every = 20
    config.log.tensorboard = True
    config.log.watchdog_seconds = 0  # A step that takes longer prints every stack and ends the process; 0 is off.
    config.log.peak_tflops = 0.0  # Of one device, for the MFU; 0 takes it from a table of known devices.
    # Stops a run whose evidence is the same for all reports or all images: least mutual information, in nats (0: off),
    # looked at from so many steps after the warm-up on.
    config.alarm = ConfigDict({"after": 100, "information": 0.25})
    config.compile_cache = "~/.cache/lgdea_jax/compiled"  # "" compiles anew each time.

    config.methods = ConfigDict()
    config.methods.clip = ConfigDict({"text": "report", "scoring": "contrast", "weights": {"contrastive": 1.0}})
    config.methods.clip_evidence = ConfigDict({
        "text": "evidence", "scoring": "positive", "weights": {"contrastive": 1.0}})
    config.methods.clip_evidence_soft = ConfigDict({
        "text": "evidence", "scoring": "positive", "weights": {"contrastive": 1.0},
        "own_share": 0.2, "target_temperature": 0.5})
    config.methods.clip_sigmoid = ConfigDict({"text": "report", "scoring": "contrast", "weights": {"sigmoid": 1.0}})
    config.methods.local = ConfigDict({
        "text": "report", "scoring": "contrast", "weights": {"contrastive": 1.0, "local": 1.0},
        # GLoRIA's 1 / tau_1, 1 / tau_2, 1 / tau_3.
        "attention_temperature": 0.25, "word_temperature": 0.2, "local_temperature": 0.1})
    config.methods.supervised = ConfigDict({
        "text": "", "scoring": "positive", "weights": {"labels": 1.0}, "uncertain": "ignore",
        # Weights of the labels and of their positive cases (pos_weight), in the data set's order; () is 1 each.
        "class_weights": (), "positive_weights": ()})
    lgdea = {
        "text": "phrases", "scoring": "positive",
        "weights": {
            "rec": 0.5, "evid_pair": 1.0, "evid_lesion": 0.2, "align": 0.5, "phrase": 1.0, "anchor": 0.5,
            "overall": 0.5,
            # Phrases that name a side or a height attend to patches there (ours, radiographs only). Off: with 0.5 the
            # study shows no gain (benchmarks/experiments/limited_pairs.md).
            "place": 0.0},
        "text_temperature": 0.1, "patch_temperature": 0.1,
        "sharpness": 1.0,  # Of the log-sum-exp over patches: large is the maximum, small the mean.
        "prototype_decay": 0.001, "contrast_temperature": 0.1,
        "own_share": 0.2, "target_temperature": 0.5,
        "stop_report": True,  # False shows the collapse that the paper's loss without it leads to.
        "overall_score": 1.0,  # Weight of the global similarity beside the evidence when scoring.
    }
    config.methods.lgdea_pairs = ConfigDict(lgdea)
    # Pseudo-targets from few pairs are mostly wrong: at full weight they cost more than they gave (see
    # benchmarks/experiments/limited_pairs.md). The text tower is trained on every report already: no pull of the images
    # on it.
    unpaired = {"evid_image": 0.3, "evid_report": 0.0, "evid_align": 0.0}
    for name in ("lgdea", "mean_teacher", "oracle"):
        config.methods[name] = ConfigDict({**lgdea, "weights": {**lgdea["weights"], **unpaired}})
    return config
