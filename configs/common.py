"""Every key of a training config, with its default and its reason. Experiments start from here and change some.

    python -m lgdea_jax.train --config=configs/NAME.py --workdir=RUN --config.KEY=VALUE
"""

from ml_collections import ConfigDict, FieldReference


def layer_rates(tower, depth, *, decay, frozen=0):
    """`optim.rates` of a transformer tower: each block learns `decay` times as fast as the one after it.

    Args:
      tower: "image_tower" or "text_tower"; depth: number of its blocks; decay: factor from one block to the one before.
      frozen: the embedding and this many blocks do not learn at all.
    """
    rules = [f"^{tower}/blocks/{block}/={0.0 if block < frozen else round(decay ** (depth - 1 - block), 4)}"
             for block in range(depth)]
    embedding = 0.0 if frozen else round(decay**depth, 4)
    return (*rules, f"^{tower}/(stem|position|cls|registers|input_norm|embeddings)={embedding}")


def read_arg(arg, *variants):
    """(the variant, whether pairs are limited) of a config file's argument: a variant, "limited", or both by a comma.

    The first of the variants is the default; see `read_words`.
    """
    variant, limited = read_words(arg, variants or (None,), ("", "limited"))
    return variant, bool(limited)


def read_words(arg, *groups):
    """One word of each group from a config file's argument, words separated by commas.

    Args:
      arg: what stands behind the colon, or None.
      groups: of words that exclude each other; the first of each is its default.

    Raises:
      ValueError: an unknown word, or two of a group; names the known ones.
    """
    words = arg.split(",") if arg else []
    named = [[word for word in words if word in group] for group in groups]
    if any(len(some) > 1 for some in named) or sum(map(len, named)) < len(words):
        known = [word for group in groups for word in group if word]
        raise ValueError(f"unknown argument {arg!r}; known: {', '.join(known)}")
    return [some[0] if some else group[0] for some, group in zip(named, groups, strict=True)]


def get_config(arg=None):
    """The base config; it names no data."""
    # docs/reference/configuration.md is made from the comments here: one key per line, its comment above or behind it.
    config = ConfigDict()
    config.method = "lgdea"  # Training objective, see `methods` below.
    config.seed = 0  # Of initial parameters, order of the data, augmentation and the choice of pairs.
    config.total_steps = 1000  # Optimiser updates.
    config.dtype = "float32"  # Of matrix products: float32 or bfloat16. Parameters and losses stay float32.
    config.dry_run = False  # Report what a step would cost on the devices at hand, without data, and stop.
    # For devices that are not at hand, as v5e:4x4,h100x8 (extra `aot`); the details go to WORKDIR/dry_run/ as JSON.
    config.dry_run_on = ""
    # Rows of the scores that a contrastive loss computes at a time, on each device; 0 computes all at once. The values
    # are the same; memory is linear in the batch instead of quadratic. Pays from thousands of pairs on.
    config.loss_chunk = 0
    # Runs whose parameters to start from, separated by commas; exported models and hf://OWNER/NAME@REVISION as well. Of
    # several each module comes from the only one that has it.
    config.init_from = ""
    config.init_parts = ()  # Modules that are taken from them, such as image_tower; () takes all.
    # KEY=VALUE: what else changes where data.pairs is not 1; the command line wins. Few pairs are read often.
    config.limited = ()
    config.compile_cache = "~/.cache/lgdea_jax/compiled"  # Folder of compiled programs; "" compiles anew each time.

    config.data = ConfigDict()
    config.data.dir = ""  # One data set written by data_prep.build; or use the three keys below.
    config.data.pairs_from = ()  # Data sets of pairs: DIR or DIR:WEIGHT, separated by commas.
    config.data.images_from = ()  # Data sets of unpaired images, likewise.
    config.data.reports_from = ()  # Data sets of unpaired reports, likewise.
    config.data.held_out_from = ()  # Data sets for evaluation only: all their splits are checked for leaks.
    config.data.make_from = ""  # A config of data_prep.build that makes a missing data.dir (phantoms only).
    config.data.split = "train"  # The split to train on.
    # Studies that stay paired: a share (<= 1) or a number (> 1); the rest becomes unpaired, disjoint by subject.
    config.data.pairs = 1.0
    # Of the unpaired images and reports, what is used: a share (<= 1) or a number (> 1), drawn by the seed.
    config.data.images = 1.0
    config.data.reports = 1.0  # Of unpaired reports, see `images`.
    # Report texts that occur both in training and in evaluation: refuse, drop (from training) or allow. Templated
    # normal reports are equal in good faith in many hospitals.
    config.data.equal_reports = "refuse"
    # Near-duplicate images, likewise. WORKDIR/near_duplicates.csv lists the pairs.
    config.data.near_duplicates = "refuse"
    # Labels to learn from, where a data set has several sets of them: reference, silver (the extractor's) or weak
    # (keywords); "" takes the plain ones, which are the reference. Evaluation goes by the reference where there is one.
    config.data.labels = ""
    config.data.cache = False  # Keep decoded, tokenised items in memory: for data sets of up to some GB.
    # Tokenise a split's reports once and keep the tokens in the data set's folder, about 1 kB a record. For data sets
    # that do not fit in memory and can be written to.
    config.data.keep_tokens = False
    config.data.workers = 0  # Processes that read ahead; 0 reads in threads of this process.
    config.data.threads = 2  # Threads that read, in each process.

    config.batch = ConfigDict()
    config.batch.pairs = 64  # Image-text pairs per batch, over all devices.
    # Unpaired images and reports per batch. `auto` is a ratio of the pairs where there are such data and the method
    # learns from them, and 0 elsewhere.
    config.batch.images = FieldReference("auto", field_type=object)
    config.batch.reports = FieldReference("auto", field_type=object)  # See `images`.
    # Of auto: unpaired images are many, and each is repeated less than a pair, so that more of them fit a step.
    config.batch.images_per_pair = 2.0
    config.batch.reports_per_pair = 1.0  # Of auto. A report costs more phrases than it teaches.
    # Parts in which the towers process a batch, one after the other, with the gradients of the whole batch (GradCache,
    # arXiv 2101.06983): the activations of one part are held, and the forward pass is done twice.
    config.batch.micro = 1

    config.image = ConfigDict()
    config.image.modality = "xray"  # xray (2D images) or ct (volumes, see `volume`).
    config.image.size = 224  # Side of the square image, in pixels; at least 8.
    config.image.mean = 0.5  # Of grey levels in [0, 1].
    config.image.std = 0.25  # Of grey levels in [0, 1].
    config.image.per_image = False  # Normalise each image by its own mean and deviation instead.

    # Volumes, for image.modality=ct. The chest CT guide lists the geometries.
    config.volume = ConfigDict()
    config.volume.geometry = ""  # One of the chest CT guide's: the data set must have been built with the same.
    config.volume.shape = ()  # Input of the model: (depth, height, width); () takes the geometry's.
    config.volume.window = ()  # (low, high) in HU; () takes the geometry's.
    config.volume.random_crop = False  # Where the shape is smaller than the stored volume: crop anywhere in it.
    config.volume.shift = 0.05  # Largest random shift, a share of each side of the shape (augment.enabled).
    config.volume.noise = 0.0  # Largest standard deviation of random noise, in HU (augment.enabled).

    config.text = ConfigDict()
    # tokenizer.json, Hugging Face directory or hf://OWNER/NAME; "" takes model.text.weights' or the data set's own.
    config.text.tokenizer = ""
    config.text.length = ConfigDict({
        "report": 128,  # Tokens of a whole report.
        "evidence": 48,  # Tokens of a report's evidence as one text.
        "phrases": 20,  # Tokens of one phrase.
    })
    config.text.phrases = 6  # Evidence phrases per report, at most.
    # Equal texts of a batch (rows without a phrase, templated ones) are encoded once: the share of the rows that a pass
    # of the text tower encodes. A batch with more distinct texts takes further passes; none is dropped. 1 encodes all.
    # The log's batch/distinct_texts is the share that is needed.
    config.text.distinct = 1.0
    config.text.uncertain_weight = 0.5  # Of a hedged finding in the report's evidence.
    # Wordings of evidence to draw from: the report's own words, and canonical words. Prompts are written in canonical
    # words, reports are not: the text tower should be trained on both.
    config.text.variants = ("verbatim", "canonical")

    # Random transforms of training images. Nothing is flipped.
    config.augment = ConfigDict()
    config.augment.enabled = True  # False leaves images unchanged.
    config.augment.device = False  # Transform 2D images in the training step, on the device: for accelerators.
    config.augment.crop = (0.7, 1.0)  # Smallest and largest share of the area that is kept, within [0.6, 1].
    config.augment.aspect = 1.2  # Largest change of the aspect ratio, >= 1.
    config.augment.rotate = 8.0  # Largest rotation, in degrees.
    config.augment.gamma = 0.3  # Largest relative change.
    config.augment.contrast = 0.3  # Largest relative change.
    config.augment.brightness = 0.1  # Largest relative change.
    config.augment.noise = 6.0  # Standard deviation, in grey levels.
    config.augment.erase = 0.0  # Probability that a random rectangle, at most 10% of the area, is filled with the mean.

    config.model = ConfigDict()
    config.model.width = 512  # Of the shared space.
    config.model.remat = False  # Recompute the blocks in the backward pass instead of keeping their activations.
    config.model.remat_keep = "nothing"  # Kept nevertheless: nothing, products (without attention's) or all_products.
    config.model.scan = False  # Compile one transformer block for all of a tower's: deep towers compile much faster.
    config.model.prototypes = 256  # Number of evidence prototypes.
    config.model.lesion_queries = 8  # Number of lesion queries.
    config.model.logit_scale = 14.3  # Initial value: 1 / 0.07, as in CLIP.
    config.model.logit_bias = 0.0  # Initial value: -10 for clip_sigmoid.
    config.model.image = ConfigDict()
    # The image tower: vit, resnet, or resnet3d for volumes; "" takes that of init_from, with the keys of `image` and
    # `volume`, or that of the weights.
    config.model.image.name = "vit"
    # Published weights to start from: a local directory or file, or hf://OWNER/NAME@REVISION on the Hugging Face Hub.
    # Empty keys of the tower are filled from their config.json.
    config.model.image.weights = ""
    config.model.image.vit = ConfigDict({
        # Size and patch size: XXS, XS, Mu, Ti, S, M, B, L, H or g, as in S/16; "" takes that of the weights, or B/16.
        "variant": "",
        # Replace the variant's; 0 keeps it.
        "sizes": {"width": 0, "depth": 0, "heads": 0, "mlp_dim": 0},
        # gap (mean of the patches), cls, map (a learned query) or pooler; "" takes that of the weights, or gap.
        "pool": "",
        "stem": "linear",  # linear, patch_mlp or hybrid.
        "attention_window": 0,  # Patches attend to patches within this distance only; 0 is global.
        "position": True,  # Learned positions.
        "dropout_rate": 0.0,  # In the blocks.
        # Whose published weights the blocks fit: plain, vit, deit, dinov2, dinov2_registers, openclip or
        # openclip_quickgelu; "" takes that of the weights, or plain.
        "family": "",
        "mlp": "",  # gelu, quick_gelu or swiglu; "" takes the family's.
        "eps": 0.0,  # Of layer norm; 0 takes the family's.
        "projection": 0,  # Width of CLIP's last layer; 0 has none.
    })
    config.model.image.resnet = ConfigDict({
        # The size: resnet6, resnet8, resnet10, resnet18, resnet34 or resnet50; "" takes the weights', or resnet50.
        "variant": "",
        # Replace the variant's; 0 keeps it.
        "sizes": {"width": 0},
        "stem": "imagenet",  # imagenet, small, patch2 or patch4.
        "norm": "batch",  # batch or group.
        "pool": "mean",  # mean, max or lse (a smooth maximum) over the patches.
        "zero_init": True,  # Blocks begin as the identity.
        "pyramid": 0,  # Earlier stages that a feature pyramid adds to the last; each doubles the patch grid's sides.
    })
    config.model.image.resnet3d = ConfigDict({
        "variant": "resnet18",  # The size, as of resnet.
        # Replace the variant's; 0 keeps it.
        "sizes": {"width": 0},
        "stem": "kinetics",  # kinetics, imagenet, small, patch2, patch4, plane2, embed2 or embed4.
        "conv": "native",  # native, or slices (fast on a CPU).
        "norm": "instance",  # instance, group or batch.
        "pool": "mean",  # mean, max or lse (a smooth maximum) over the patches.
        "zero_init": True,  # Blocks begin as the identity.
    })
    config.model.text = ConfigDict()
    config.model.text.name = "bert"  # The text tower: bert.
    config.model.text.weights = ""  # The same for text; an empty text.tokenizer takes the tokeniser beside them.
    config.model.text.bert = ConfigDict({
        # The size: XXS, XS, tiny, mini, small, medium, base or large; "" takes that of the weights, or base.
        "variant": "",
        # Replace the variant's; 0 keeps it.
        "sizes": {"width": 0, "depth": 0, "heads": 0, "mlp_dim": 0},
        # cls, mean, pooler, or projection (CXR-BERT's head); "" takes projection where the weights have it, or cls.
        "pool": "",
        "dropout_rate": 0.0,  # In the blocks.
        # bert or roberta: whose published weights the blocks fit; "" takes that of the weights, or bert.
        "family": "",
        "eps": 0.0,  # Of layer norm; 0 takes the family's.
        "projection": 128,  # Width of pool=projection.
    })

    # Targets of unpaired images and reports, for lgdea, mean_teacher and oracle.
    config.memory = ConfigDict()
    # Targets begin here, a share of the steps, but not before the warm-up ends: an untrained teacher's errors stay.
    config.memory.start = 0.1
    config.memory.full = 0.3  # They have their full weight from here on, a share of the steps.
    config.memory.graph_every = 100  # Steps from one rebuild of the relations to the next.
    config.memory.landmarks = 256  # Anchors of each side of the relations, at most as many as items.
    config.memory.top = 32  # Landmarks that an item is assigned to; 0 is all.
    config.memory.temperature = 0.1  # Of the similarities: small links only what is very similar.
    config.memory.alpha = 0.8  # Weight of a further step along the graph.
    config.memory.order = 3  # Steps on either side.
    config.memory.own = 0.5  # Share of the teacher's own evidence in a target: relations alone rest on few pairs.
    config.memory.sharpen = 0.7  # Temperature of the targets: propagation blurs them.
    config.memory.align = 1.0  # Power of the alignment to the reports' mean evidence; 0 is none.
    config.memory.momentum = 0.95  # Of the running means of the evidence of images and reports.
    config.memory.truth = False  # Read the hidden reports of unpaired images, for the oracle and for diagnostics.

    # The student's view of unpaired images, on top of `augment`: the teacher, which makes their targets, is not to be
    # confused, and the student is to learn what holds in spite of it. Nothing is flipped.
    config.strong = ConfigDict()
    config.strong.crop = 1.0  # Smallest share of the area that is kept, within [0.6, 1].
    config.strong.rotate = 0.0  # Largest rotation, in degrees.
    config.strong.gamma = 0.5  # Largest relative change.
    config.strong.contrast = 0.0  # Largest relative change.
    config.strong.noise = 0.04  # Largest standard deviation, a share of the range of grey levels.
    config.strong.holes = 2  # Rectangles that are filled with the image's mean.
    config.strong.hole = 0.3  # Largest side of one, a share of the image's.

    # AdamW, with weight decay on kernels only.
    config.optim = ConfigDict()
    config.optim.schedule = "cosine"  # cosine or linear to zero, or constant.
    config.optim.rate = 1e-4  # Peak learning rate.
    config.optim.warmup_steps = 100  # Linear warm-up.
    config.optim.weight_decay = 0.05  # On kernels only.
    config.optim.beta1 = 0.9  # Of AdamW.
    config.optim.beta2 = 0.98  # Of AdamW.
    config.optim.clip_norm = 1.0  # Largest norm of the gradient; larger ones are scaled down.
    # PATTERN=MULTIPLIER over parameter paths; the first match wins, 0 freezes. A frozen batch norm keeps its moments.
    config.optim.rates = ()
    # Share of the image tower's blocks that do not learn, with all before them: 0 none, 1 the whole tower.
    config.optim.frozen = 0.0
    config.optim.ema = 0.0  # Decay of the averaged parameters that are evaluated; 0 evaluates the trained ones.

    config.mesh = ConfigDict({
        "data": -1,  # Devices that split the batch; -1 takes all that are left.
        "fsdp": 1,  # Devices that also split parameters and optimiser state.
    })
    config.distributed = ConfigDict({
        "coordinator": "",  # HOST:PORT of process 0; "" takes it from the scheduler.
        "num_processes": 1,  # 0 takes the number from the scheduler.
        "process_id": -1,  # -1 takes the number of this process from the scheduler.
    })

    # Evaluation during training, without intervals.
    config.eval = ConfigDict()
    config.eval.every = 0  # Steps; 0 evaluates at the end only.
    config.eval.split = "validation"  # The split to evaluate on.
    config.eval.dir = ""  # A data set of its own; "" evaluates on the data set that is trained on.
    config.eval.records = 1000  # At most; 0 is all.
    config.eval.metric = "zero_shot/auroc"  # The checkpoint with the highest value is the best.

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000  # Steps.
    config.checkpoint.keep = 2  # Latest checkpoints to keep, besides the best.

    config.log = ConfigDict()
    config.log.every = 20  # Steps.
    config.log.tensorboard = True  # Write TensorBoard files beside metrics.jsonl.
    config.log.wandb = ""  # Project of Weights & Biases, which gets the same scalars; "" is off.
    config.log.watchdog_seconds = 0  # A step that takes longer prints every stack and ends the process; 0 is off.
    config.log.peak_tflops = 0.0  # Of one device, for the MFU; 0 takes it from a table of known devices.
    # Stops a run whose evidence is the same for all reports or all images.
    config.alarm = ConfigDict({
        "after": 100,  # Steps after the warm-up before the first check.
        "information": 0.25,  # Least mutual information of items and prototypes, in nats; 0 is off.
    })

    # Each method is a preset: an objective of lgdea_jax/methods with its options. A loss term of weight 0 is not
    # computed. mean_teacher and oracle have the keys of lgdea, and lgdea_pairs those that are not for unpaired items.
    config.methods = ConfigDict()
    config.methods.clip = ConfigDict({
        # The class that computes it: clip, clip_evidence_soft, clip_sigmoid, clip_supervised, local, supervised,
        # supervised_text, lgdea_pairs or lgdea.
        "objective": "clip",
        "text": "report",  # What the text tower reads: report, evidence, phrases, or "" for none.
        "scoring": "contrast",  # How findings are scored: pair, positive or contrast.
        "weights": {
            "contrastive": 1.0,  # Softmax over the batch, both directions.
        }})
    config.methods.clip_evidence = ConfigDict({
        "objective": "clip", "text": "evidence", "scoring": "positive", "weights": {"contrastive": 1.0}})
    config.methods.clip_evidence_soft = ConfigDict({
        "objective": "clip_evidence_soft", "text": "evidence", "scoring": "positive", "weights": {"contrastive": 1.0},
        "own_share": 0.2,  # Mass of a row's own report in the soft targets; at 1 no other report is a match.
        "target_temperature": 0.5,  # Of the overlap of findings; towards 0 only reports with the same findings match.
    })
    config.methods.clip_sigmoid = ConfigDict({
        "objective": "clip_sigmoid", "text": "report", "scoring": "contrast",
        "weights": {
            "sigmoid": 1.0,  # A binary loss for each image and text of the batch.
        }})
    config.methods.local = ConfigDict({
        "objective": "local", "text": "report", "scoring": "contrast",
        "weights": {
            "contrastive": 1.0,
            "local": 1.0,  # Words against the regions that they attend to.
        },
        "attention_temperature": 0.25,  # Of a word's attention over patches: GLoRIA's 1 / tau_1.
        "word_temperature": 0.2,  # Of the log-sum-exp over words: GLoRIA's 1 / tau_2.
        "local_temperature": 0.1,  # Of the contrast: GLoRIA's 1 / tau_3.
    })
    config.methods.supervised = ConfigDict({
        "objective": "supervised", "text": "", "scoring": "positive",
        "weights": {
            "labels": 1.0,  # Binary cross entropy of the labels.
        },
        # What an uncertain label (-1) counts as: ignore (it is left out), positive, negative or soft (a target of 0.5).
        "uncertain": "ignore",
        "class_weights": (),  # Weight of each label, in the data set's order; () is 1 each.
        "positive_weights": (),  # Weight of each label's positive cases (pos_weight), likewise.
    })
    config.methods.supervised_text = ConfigDict({**config.methods.supervised.to_dict(), "objective": "supervised_text",
                                                 "text": "report"})
    config.methods.clip_supervised = ConfigDict({
        "objective": "clip_supervised", "text": "report", "scoring": "pair",
        "weights": {
            "contrastive": 1.0,
            "image_labels": 0.5,  # Binary cross entropy of the labels, of images by the shared classifier.
            "text_labels": 0.5,  # The same of reports.
        },
        "similarity": "dot",  # dot (without norms and temperature) or cosine (CLIP's).
        "uncertain": "ignore", "class_weights": (), "positive_weights": ()})
    lgdea = {
        "text": "phrases", "scoring": "positive",
        "weights": {
            "rec": 0.5,  # Reconstruction of phrases from prototypes (equation 5).
            "evid_pair": 1.0,  # Evidence of image and report, log-sum-exp over patches.
            "evid_lesion": 0.2,  # Evidence of image and report, mean over lesion queries (equations 7 and 9).
            "align": 0.5,  # Evidence vectors of image and report against soft targets.
            "phrase": 1.0,  # Phrases against the best patches of the batch's images.
            "anchor": 0.5,  # Phrases of one finding stay together.
            "overall": 0.5,  # Pooled image against the mean phrase.
        },
        "text_temperature": 0.1,  # Of the assignment of phrases to prototypes.
        "patch_temperature": 0.1,  # Of the assignment of patches to prototypes.
        "sharpness": 1.0,  # Of the log-sum-exp over patches: large is the maximum, small the mean.
        "prototype_decay": 0.001,  # Of the prototypes' squared norm in `rec`.
        "contrast_temperature": 0.1,  # Of `align`, `phrase` and `anchor`.
        "own_share": 0.2, "target_temperature": 0.5,
        "stop_report": True,  # False shows the collapse that the paper's loss leads to without it.
        "overall_score": 1.0,  # Weight of the global similarity beside the evidence when scoring.
    }
    config.methods.lgdea_pairs = ConfigDict({"objective": "lgdea_pairs", **lgdea})
    # The text tower is trained on every report already: no pull of the images on it.
    unpaired = {
        "evid_image": 1.0,  # Evidence of unpaired images against their targets.
        "evid_report": 0.0,  # Evidence of unpaired reports against their targets.
        "evid_align": 0.0,  # Evidence vectors of all images and reports of the batch, by their targets.
    }
    lgdea = {"objective": "lgdea", **lgdea, "weights": {**lgdea["weights"], **unpaired}}
    config.methods.lgdea = ConfigDict({
        **lgdea,
        # Where the targets of unpaired items come from: relations (the graph, with memory.own of the teacher's),
        # teacher (the averaged model's own evidence of the image) or truth (the hidden report: an upper bound, needs
        # memory.truth).
        "targets": "relations"})
    config.methods.mean_teacher = ConfigDict({**lgdea, "targets": "teacher"})
    config.methods.oracle = ConfigDict({**lgdea, "targets": "truth"})
    return config
