"""The public names of the package. What stands here does not move or vanish within 0.x; a new name is added here."""

PUBLIC = {
    "resnet_cli": ["ClassifierTrainer", "Run", "load_run", "train"],
    "resnet_cli.models": [
        "CNN", "MLP", "Airbench", "ArgMaxClassifier", "CifarResNet", "ResNet", "ResidualBlock",
        "ResidualBottleneckBlock", "ResidualMLP", "ScalarChain", "StagedResNet", "timm_model", "torchvision_model",
    ],
    "resnet_cli.data": [
        "Augment", "BatchLoader", "Dataset", "DatasetSplit", "DeviceLoader", "LazyImages", "Loaders", "Normalize",
        "StreamLoader", "arrays", "cifar10", "cifar100", "csv", "digits", "fashion_mnist", "flowers102",
        "huggingface", "image_folder", "make_loaders", "mnist", "noise", "read_image", "stratified_split",
        "stratified_subset", "svhn", "synthetic", "webdataset",
    ],
    "resnet_cli.loggers": ["Logger", "LoggerGroup", "MLflow", "TensorBoard", "WeightsAndBiases", "require_packages"],
    "resnet_cli.sweeps": ["Sweep"],
    "resnet_cli.optimizers": [
        "CombinedOptimizer", "Muon", "apply_group_options", "build_optimizer", "orthogonalise", "parameter_groups",
    ],
    "resnet_cli.losses": [
        "BinaryCrossEntropy", "ClassLoss", "ClassWeights", "CrossEntropy", "Distillation", "Focal", "balanced_weights",
        "resolve_class_weights",
    ],
    "resnet_cli.schedules": [
        "GroupedSchedule", "RunLength", "Schedule", "Warmup", "constant", "cosine", "multistep", "one_cycle",
        "piecewise_linear",
    ],
}  # fmt: skip

# Names in `conf/` outside of PUBLIC: Hydra's plugins and callbacks find them by these names.
PLUGIN_TARGETS = {
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.resnet_cli.OptunaSearch",
    "resnet_cli.commands.train.callback.CheckConfig",
}

# group -> the callables that its options name, each in its public home.
TARGETS = {
    "data": [
        "resnet_cli.data.arrays", "resnet_cli.data.cifar10", "resnet_cli.data.cifar100", "resnet_cli.data.csv",
        "resnet_cli.data.digits",
        "resnet_cli.data.fashion_mnist", "resnet_cli.data.flowers102", "resnet_cli.data.huggingface",
        "resnet_cli.data.image_folder",
        "resnet_cli.data.mnist", "resnet_cli.data.noise", "resnet_cli.data.svhn", "resnet_cli.data.synthetic",
        "resnet_cli.data.webdataset",
    ],
    "logger": [
        "resnet_cli.loggers.MLflow", "resnet_cli.loggers.TensorBoard", "resnet_cli.loggers.WeightsAndBiases",
    ],
    "loss": [
        "resnet_cli.losses.BinaryCrossEntropy", "resnet_cli.losses.CrossEntropy", "resnet_cli.losses.Focal",
    ],
    "model": [
        "resnet_cli.models.Airbench", "resnet_cli.models.CNN", "resnet_cli.models.CifarResNet",
        "resnet_cli.models.ResNet", "resnet_cli.models.ResidualMLP", "resnet_cli.models.ScalarChain",
        "resnet_cli.models.StagedResNet", "resnet_cli.models.timm_model", "resnet_cli.models.torchvision_model",
    ],
    "optimizer": [
        "resnet_cli.optimizers.Muon", "torch.optim.Adam", "torch.optim.AdamW", "torch.optim.RMSprop", "torch.optim.SGD",
    ],
    "schedule": [
        "resnet_cli.schedules.constant", "resnet_cli.schedules.cosine", "resnet_cli.schedules.multistep",
        "resnet_cli.schedules.one_cycle", "resnet_cli.schedules.piecewise_linear",
    ],
    "trainer": ["resnet_cli.ClassifierTrainer"],
}  # fmt: skip

# What notebooks use of the teaching interface: class -> its methods and attributes.
METHODS = {
    "resnet_cli.ClassifierTrainer": ["evaluate", "fit", "test_batch", "test_epoch", "train_batch", "train_epoch"],
    "resnet_cli.models.ArgMaxClassifier": [
        "classify", "classify_scores", "forward", "predict_proba", "predict_proba_scores",
    ],
    "resnet_cli.data.Augment": [
        "erase_boxes", "is_off", "transform_normalised", "transform_pixels", "validate", "validate_batch_size",
    ],
    "resnet_cli.loggers.Logger": ["end", "install", "packages", "row", "start"],
}  # fmt: skip
