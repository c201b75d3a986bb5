"""The table of wrong commands: what is typed, and what the answer must say.

`NAMES` are answered without importing torch; `TOGETHER` are options that are right alone and wrong together, which only
building shows. Each row is a command as typed in a shell and what its `error:` line holds, nearest name included.
"""

# `typed -> words that the answer has`; a row's id is what is typed.
NAMES = """
model=resnet21 -> model=resnet21: no such option; did you mean resnet20?
model=Resnet20 -> did you mean resnet20?
model= -> model=: no such option
model=null -> model=null: not the name of an option; resnet-info --list model names them
model=5 -> model=5: not the name of an option; resnet-info --list model names them
data=true -> data=true: not the name of an option
-m model=1,2 -> a group was given no name
~model -> ~model: a run needs this group; model=NAME chooses another option
~optimizer=sgd -> ~optimizer=sgd: a run needs this group
--resolve -> --resolve: needs --cfg job
name=${oc.env:NO_SUCH} -> name: the environment variable NO_SUCH is not set; ${oc.env:NO_SUCH,VALUE} has a value
name=${seed.x} -> name: Error trying to access seed.x
-m seed=0,1 --cfg job -> --multirun, --run, --cfg and --info are mutually exclusive
--run --info config -> --multirun, --run, --cfg and --info are mutually exclusive
data.merge={pet: [cat, dog]} -> put the whole argument in single quotes
optimizer=sdg -> did you mean sgd?
optimizer=lion -> optimizer=lion: no such option (adam, adamw, muon, rmsprop, sgd)
schedule=cosin -> did you mean cosine?
schedule=step -> did you mean multistep?
data=cifar -> did you mean cifar10?
data=digit -> did you mean digits?
data=imagenet -> data=imagenet: no such option
trainer=defualt -> did you mean default?
trainer=turbo -> trainer=turbo: no such option (debug, default, deterministic, fast, overfit)
experiment=he2016 -> did you mean he2015?
modle=resnet20 -> modle: unknown key; did you mean model?
models=resnet20 -> did you mean model?
optimiser=sgd -> did you mean optimizer?
scheduler=cosine -> did you mean schedule?
dataset=digits -> did you mean data?
training=fast -> did you mean trainer?
experiments=he2015 -> experiments: unknown key; did you mean experiment?
model=[resnet8,cnn] -> model=[resnet8,cnn]: not the name of one option; -m model=a,b
experiment={a:1} -> experiment={a:1}: not the name of one option
model=resnet20 model=plain20 -> model: given twice, as resnet20 and as plain20
seed=1 seed=2 -> seed: given twice
model.depth=8 ++model.depth=14 -> model.depth: given twice, as 8 and as 14
seed=1 +seed=2 -> seed: given twice
model=inf -> model=inf: not the name of an option
model=1e3 -> model=1e3: not the name of an option
-p model -> -p model: needs --cfg job
--multirun=1 -> --multirun, -m: takes no value
-model.depth=14 -> settings have no dashes: model.depth=14
--model.depth=14 -> settings have no dashes: model.depth=14
model.depht=20 -> model.depht: unknown key; did you mean model.depth?
model.Depth=20 -> did you mean model.depth?
model.blocks=3 -> did you mean model.block?
optimizer.learning_rate=0.1 -> did you mean optimizer.lr?
optimizer.lrr=0.1 -> did you mean optimizer.lr?
lr=0.1 -> did you mean optimizer.lr?
epoch=3 -> did you mean trainer.epochs?
learning_rate=3 -> did you mean optimizer.lr?
data.augment=false -> data.augment: false is not allowed; it takes null or a node with _target_
logger=[null] -> logger=[null]: not names of options; resnet-info --list logger names them
logger=tensorboard,wandb -> 'logger=[tensorboard,wandb]' chooses all of them; add -m
experiment=he2015,fixup -> experiment=he2015,fixup: several values: add -m for a sweep, or choose one
name=${nope:3} -> name: the reference ${nope:...} names no resolver
name=${name} -> name: the reference leads back to this key
depth=20 -> did you mean model.depth?
epochs=3 -> did you mean trainer.epochs?
+epochs=3 -> did you mean trainer.epochs?
batch_size=3 -> did you mean data.batch_size?
+extra=1 -> extra: unknown key (allowed: name, seed
trainer.epoch=3 -> did you mean trainer.epochs?
data.batchsize=3 -> did you mean data.batch_size?
data.bach_size=3 -> did you mean data.batch_size?
data=digits data.classes=3 -> data.classes: 3 is not allowed; it takes a list of
data.augment.mixupp=0.3 -> did you mean data.augment.mixup?
data.augment.rotate=3 -> did you mean data.augment.rotation?
data.augment.hue=3 -> data.augment.hue: unknown key; data.augment.transforms=[{_target_:
schedule.warmpu=1 -> did you mean schedule.warmup?
schedule.milestones=[1] -> schedule.milestones: unknown key (allowed: peak_at,
model=resnet8 model.pretrained=true -> init; model=timm takes it)
sed=1 -> did you mean seed?
resumee=x -> did you mean resume?
init_form=x -> did you mean init_from?
model=cnn optimizer=adamw optimizer.momentum=0.9 -> optimizer.momentum: unknown key

optimizer.lr=abc -> optimizer.lr: abc is not allowed; it takes a number above 0
optimizer.lr= -> optimizer.lr: is empty; it takes a number above 0
optimizer.lr=null -> optimizer.lr: null is not allowed
optimizer.lr=nan -> optimizer.lr: nan is not allowed
optimizer.lr=inf -> optimizer.lr: inf is not allowed
optimizer.lr=-inf -> optimizer.lr: -inf is not allowed
optimizer.lr=1e400 -> optimizer.lr: inf is not allowed
optimizer.lr=-1 -> optimizer.lr: -1 is not allowed; it takes a number above 0
optimizer.lr=0 -> optimizer.lr: 0 is not allowed; it takes a number above 0
optimizer.lr=true -> optimizer.lr: true is not allowed
optimizer.lr=[0.1] -> optimizer.lr: [0.1] is not allowed
optimizer.lr={a:1} -> optimizer.lr: {a: 1} is not allowed
optimizer.momentum=1.5 -> optimizer.momentum: 1.5 is not allowed; it takes a number from 0 to below 1
optimizer.momentum=-0.1 -> optimizer.momentum: -0.1 is not allowed
optimizer.momentum=nan -> optimizer.momentum: nan is not allowed
optimizer.weight_decay=-1 -> optimizer.weight_decay: -1 is not allowed; it takes a number 0 or more
optimizer.weight_decay=inf -> optimizer.weight_decay: inf is not allowed
optimizer.dampening=-1 -> optimizer.dampening: -1 is not allowed
optimizer.nesterov=maybe -> optimizer.nesterov: maybe is not allowed; it takes true or false
optimizer=adamw optimizer.betas=[0.9] -> optimizer.betas: [0.9] is not allowed; it takes a list of 2
optimizer=adamw optimizer.betas=[0.9,1.5] -> optimizer.betas: [0.9, 1.5] is not allowed
optimizer=adamw optimizer.betas=0.9 -> optimizer.betas: 0.9 is not allowed
optimizer=adam optimizer.eps=-1 -> optimizer.eps: -1 is not allowed
optimizer=rmsprop optimizer.alpha=1.5 -> optimizer.alpha: 1.5 is not allowed
optimizer=rmsprop optimizer.momentum=2 -> optimizer.momentum: 2 is not allowed
optimizer=muon optimizer.lr=0 -> optimizer.lr: 0 is not allowed
optimizer=muon optimizer.momentum=1 -> optimizer.momentum: 1 is not allowed
optimizer=muon optimizer.newton_schulz_steps=0 -> optimizer.newton_schulz_steps: 0 is not allowed
optimizer.groups=3 -> optimizer.groups: 3 is not allowed; it takes a mapping
optimizer.groups={bias:{optimizer:sgd}} -> optimizer.groups.bias.optimizer: sgd is not allowed; it takes a node
optimizer.groups={bias:{optimizer:{lr:1}}} -> bias.optimizer: {lr: 1} is not allowed; it takes a node: {_target_:
optimizer.groups={bias:{optimizer:{_target_:torch.optim.SGD,lrr:1}}} -> did you mean optimizer.groups.bias.optimizer.lr?
optimizer.groups={bias:{optimizer:{_target_:torch.optim.SGD,lr:-1}}} -> bias.optimizer.lr: -1 is not allowed
optimizer.groups={bias:{optimizer:{_target_:torch.optim.SGD,groups:{}}}} -> bias.optimizer.groups: unknown key
optimizer.groups={bias:{schedule:{_target_:resnet_cli.schedules.cosine,finl:0}}} -> optimizer.groups.bias.schedule.f
optimizer.groups={bias:{schedule:{_target_:torch.optim.lr_scheduler.StepLR}}} -> not a schedule: it takes an optimizer
optimizer.foreach=3 -> optimizer.foreach: 3 is not allowed
optimizer._target_=3 -> optimizer._target_: 3 is not the dotted name
optimizer._target_=torch.optim.Adadelta optimizer.rho=2 -> optimizer.rho: 2 is not allowed
trainer.epochs=0 -> trainer.epochs: 0 is not allowed; it takes a number above 0
trainer.epochs=-1 -> trainer.epochs: -1 is not allowed
trainer.epochs=inf -> trainer.epochs: inf is not allowed
trainer.epochs=abc -> trainer.epochs: abc is not allowed
trainer.epochs=null -> trainer.epochs: null is not allowed
trainer.epochs=true -> trainer.epochs: true is not allowed
trainer.epochs=12345678901234567890 -> trainer.epochs: 12345678901234567890 (more than 64 bits hold) is not allowed
trainer.accumulate=0 -> trainer.accumulate: 0 is not allowed
trainer.clip_norm=0 -> trainer.clip_norm: 0 is not allowed; it takes a number above 0 or null
trainer.clip_norm=nan -> trainer.clip_norm: nan is not allowed
trainer.label_smoothing=2 -> trainer.label_smoothing: 2 is not allowed; it takes a number from 0 to below 1
trainer.averaging=1.5 -> trainer.averaging: 1.5 is not allowed; it takes one of none, ema, swa
trainer.averaging=emma -> did you mean ema?
trainer.swa_start=-1 -> trainer.swa_start: -1 is not allowed; it takes a number 0 or more
trainer.swa_lr=0 -> trainer.swa_lr: 0 is not allowed; it takes a number above 0 or null
trainer.averaging_decay=1.5 -> trainer.averaging_decay: 1.5 is not allowed
trainer.early_stopping=0 -> trainer.early_stopping: 0 is not allowed
trainer.checkpoint_every=-5 -> trainer.checkpoint_every: -5 is not allowed
trainer.max_batches=0 -> trainer.max_batches: 0 is not allowed
trainer.time_budget=30minuts -> trainer.time_budget: 30minuts is not allowed; it takes text such as '30 min'
trainer.time_budget=0 -> trainer.time_budget: 0 is not allowed
trainer.time_budget=-5s -> trainer.time_budget: -5s is not allowed
trainer.time_budget=1h trainer.epochs=3 -> trainer.epochs: 3 cannot be combined with trainer.time_budget=1h
trainer.steps_per_epoch=0 -> trainer.steps_per_epoch: 0 is not allowed
trainer.compile=modle -> did you mean model?
trainer.precision=fp17 -> did you mean fp16?
trainer.precision=16 -> trainer.precision: 16 is not allowed; it takes one of auto, fp32, tf32, bf16, fp16
trainer.channels_last=2 -> trainer.channels_last: 2 is not allowed; it takes true or false
trainer.device=3 -> trainer.device: 3 is not allowed
data.batch_size=0 -> data.batch_size: 0 is not allowed
data.batch_size=2.5 -> data.batch_size: 2.5 is not allowed
data.batch_size=12345678901234567890 -> data.batch_size: 12345678901234567890 (more than 64 bits hold)
data.workers=-1 -> data.workers: -1 is not allowed; it takes a whole number from 0 to 256
data.workers=10000 -> data.workers: 10000 is not allowed
data.val_fraction=1 -> data.val_fraction: 1 is not allowed; it takes a number from 0 to below 1
data.val_fraction=nan -> data.val_fraction: nan is not allowed
data.train_size=0 -> data.train_size: 0 is not allowed
data.backend=devise -> did you mean device?
data.split_seed=-1 -> data.split_seed: -1 is not allowed
data.split_seed=12345678901234567890 -> data.split_seed: 12345678901234567890 (more than 64 bits hold)
data.augment=none -> data.augment: none is not allowed
data.augment.flip=randon -> did you mean random?
data.augment.crop=-1 -> data.augment.crop: -1 is not allowed
data.augment.crop_padding=wrap -> data.augment.crop_padding: wrap is not allowed; it takes one of zero, reflect
data.augment.mixup=inf -> data.augment.mixup: inf is not allowed
data=synthetic data.classes=1 -> data.classes: 1 is not allowed; it takes a whole number from 2
data=synthetic data.count=0 -> data.count: 0 is not allowed
data=image_folder -> data.root: a value must be given (data.root=...)
data=image_folder data.root=x data.mode=rgb -> did you mean RGB?
data=csv -> data.file: a value must be given (data.file=...)
data=arrays -> data.file: a value must be given (data.file=...)
data=csv data.file=x.csv data.label_colum=class -> did you mean data.label_column?
seed=-1 -> seed: -1 is not allowed; it takes a whole number from 0 to
seed=abc -> seed: abc is not allowed
seed=1180591620717411303424 -> seed: 1180591620717411303424
name=3 -> name: 3 is not allowed; it takes text
resume_force=2 -> resume_force: 2 is not allowed; it takes true or false
model.depth=4 -> model.depth: 4 is not allowed; it takes a whole number from 8 to 10000
model.depth=1000002 -> model.depth: 1000002 is not allowed; it takes a whole number from 8 to 10000
model=resnet18 model.layers=[100000,1,1,1] -> model.layers: [100000, 1, 1, 1] is not allowed; it takes a list of
model.depth=abc -> model.depth: abc is not allowed
model.width=0 -> model.width: 0 is not allowed
model.shortcut=D -> model.shortcut: D is not allowed; it takes one of A, B, C
model.order=preactivatoin -> did you mean preactivation?
model.block=bottelneck -> did you mean bottleneck?
model.norm=batchnorm -> did you mean batch?
model.activation_type=rleu -> did you mean relu?
model.init=hee -> did you mean he?
model.dropout=1 -> model.dropout: 1 is not allowed; it takes a number from 0 to below 1
model.stochastic_depth=nan -> model.stochastic_depth: nan is not allowed
model.residual=2 -> model.residual: 2 is not allowed; it takes true or false
model=cnn model.channels=64 -> model.channels: 64 is not allowed; it takes a list
model=cnn model.channels=[64,abc] -> model.channels: [64, abc] is not allowed
model=cnn model.pool_every=0 -> model.pool_every: 0 is not allowed
model=resnet18 model.stem=imgnet -> did you mean imagenet?
model._target_=nowhere.Net -> model._target_: there is no module named 'nowhere'
schedule.warmup_start=2 -> schedule.warmup_start: 2 is not allowed; it takes a number from 0 to 1
schedule.warmup_shape=cosine -> schedule.warmup_shape: cosine is not allowed; it takes one of linear, constant
schedule=cosine schedule.final=-1 -> schedule.final: -1 is not allowed
schedule=multistep schedule.gamma=0 -> schedule.gamma: 0 is not allowed; it takes a number above 0
schedule=multistep schedule.milestones=5 -> schedule.milestones: 5 is not allowed; it takes a list
schedule=piecewise_linear schedule.points=[[0,1,2]] -> schedule.points: [[0, 1, 2]] is not allowed
seed=${nope} -> nope
'data.root="a${b}"' -> data.root: the reference ${b} names no key; for a literal ${ write \\${ inside quotes
name=${oc.env:NOPE_NOT_SET} -> NOPE_NOT_SET
[1,2 -> [1,2: not key=value
seed=[1,2 -> not key=value
a=b=c -> a=b=c: not key=value
seed -> seed: not key=value
--nonsense -> unrecognized arguments: --nonsense
--config-dir nowhere -> --config-dir=nowhere: no such folder
--experimental-rerun=x.pickle -> --experimental-rerun: refused
-m seed=1,2 model.width=1,a -> job 1 (seed=1, model.width=a) and 1 more: model.width: a
-m seed=1,2 modle.depth=3 -> modle: unknown key; did you mean model?
-m seed=range(5,2) -> -m: there is no job: a range(a,b) is empty
-m 'model=glob(resnett*)' -> -m: there is no job
-m seed=1,2 hydra.sweeper.max_batch_size=-1 -> hydra.sweeper.max_batch_size=-1: takes a whole number of 1 or more
-m seed=1,2 'hydra.sweep.subdir=/elsewhere/${seed}' -> jobs lie inside hydra.sweep.dir
reproduce=nowhere -> reproduce=nowhere: no such run folder
hydra/job_logging=nope -> hydra/job_logging=nope: no such option
hydra/job_logging=default -> hydra.job_logging.handlers.file: would write to train.log in the run folder
hydra.verbose=[1,2] -> hydra.verbose: takes true, false, the name of a logger, or a list of names
hydra.verbose=5 -> hydra.verbose: takes true, false
hydra.callbacks.check=null -> hydra.callbacks.check: cannot be changed
~hydra.callbacks.check -> ~hydra.callbacks.check: cannot be changed
hydra.callbacks.check._target_=a.B -> hydra.callbacks.check._target_: cannot be changed
resume=nowhere -> resume=nowhere: no such run folder
resume=3 -> resume=3: no such run folder
resume=file.txt -> resume=file.txt: not a run folder
resume=folder -> resume=folder: not a run folder
resume=nowhere,folder -> resume=nowhere,folder: no such run folder
seed=1,2 -> seed=1,2: several values: add -m
"""

# On 96 synthetic images of 8x8 pixels in 3 classes, in batches of 32.
TOGETHER = """
model=cifar_resnet model.depth=21 -> model.depth=21: must be 6n+2 with block=basic; the nearest are 20 and 26
model=cifar_resnet model.depth=19 -> model.depth=19: must be 6n+2
model=cifar_resnet model.block=bottleneck model.depth=22 -> model.depth=22: must be 9n+2
model=cifar_resnet model.depth=28 -> a WRN-28 is depth=26 here
model=cifar_resnet model.shortcut=identity -> model.shortcut=identity: a block maps [16, 8, 8] -> [32, 4, 4]
model=plain20 model.stochastic_depth=0.2 -> without a shortcut, a dropped block returns zeros
model=cifar_resnet model.init=fixup -> norm=batch: set none
model=fixup20 model.residual=false -> set residual=true
model=cifar_resnet model.init=looks_linear -> is not linear; set norm=none
model=plain20 model.init=zero_gamma -> model.init=zero_gamma: the block stages.0.0 needs a shortcut
model=cnn model.init=looks_linear -> set activation_type=crelu
model=cnn model.channels=[] -> model.channels=[]: must name at least one layer
model=cnn model.pool_every=1 -> model: pooling 4: leaves 0x0 pixels of 1x1
model=cnn model.pooling_params.kernel_size=9 -> model: pooling 1: leaves 0x0 pixels of 8x8
model=cnn model.conv_params.kernel_size=15 -> model: convolution 1: leaves -4x-4 pixels
model=cnn model.activation_params.slope=3 -> model.activation_params.slope: ReLU takes inplace
model=cnn model.conv_params.kernal_size=3 -> did you mean kernel_size?
model=cnn model.norm=group model.norm_params.num_groups=7 -> num_groups=7: must divide the 64 channels
model=residual_mlp model.dims=[3,4] model.shortcut=identity -> model.shortcut=identity: a block maps [128] -> [3]
model=resnet18 model.layers=[] -> model.layers=[]: must name at least one layer
model=torchvision model.name=resnet19 -> resnet1
model=scalar_chain -> model: resnet_cli.models.ScalarChain does not run on images
model._target_=torch.nn.ReLU -> scores of shape
model._target_=resnet_cli.models.CifarResnet -> did you mean CifarResNet?
optimizer._target_=torch.optim.SDG -> did you mean SGD?
optimizer._target_=torch.optim.LBFGS -> optimizer._target_: LBFGS requires a closure
optimizer=adamw +optimizer.capturable=true -> optimizer.capturable: needs CUDA
optimizer=adam +optimizer.differentiable=true -> optimizer.differentiable: is for gradients through the update
optimizer=adam optimizer.groups={bias:{capturable:true}} -> optimizer.groups.bias.capturable: needs CUDA
optimizer.dampening=0.5 -> optimizer.dampening=0.5: needs optimizer.nesterov=false
optimizer.momentum=0 -> optimizer.momentum=0: needs optimizer.nesterov=false
optimizer.groups={bias:{lr:-1}} -> optimizer.groups.bias.lr=-1: it takes a number 0 or more
optimizer.groups={bias:{lrr:1}} -> no such option; did you mean lr?
optimizer.groups={nothing:{lr:1}} -> 'nothing' matches no parameter
optimizer.groups={bias:{lr:1,optimizer:{_target_:torch.optim.SGD}}} -> optimizer.groups.bias.lr: has no effect beside
optimizer.groups={bias:{optimizer:{_target_:torch.optim.SDG}}} -> bias.optimizer._target_: torch.optim has no 'SDG'; did
optimizer.groups={i:{optimizer:{_target_:torch.optim.SGD}}} -> all parameters have optimizers of their own
schedule.warmup=100 -> schedule.warmup=100 is 300 steps, longer than the run of 6 steps
schedule.warmup=-1 -> schedule.warmup=-1: it takes
schedule.warmup=abc -> schedule.warmup='abc': it takes
schedule=multistep schedule.milestones=[75%,50%] -> positions must be in order
schedule=multistep schedule.milestones=[50%,200%] -> beyond the end of the run
schedule=multistep schedule.milestones=[1] schedule.warmup=2 -> inside the warm-up
schedule=piecewise_linear schedule.points=[] -> at least one pair
schedule.warmup=1 schedule.warmup_shape=constant -> trains nothing
data.drop_last=true data.batch_size=1000 -> data.batch_size=1000: must be at most
data.val_fraction=0.001 -> data.val_fraction=0.001: 0.001 of 96 images is less than one image: use 0.011 or more
data.image_size=1 -> data.image_size=1:
data.classes=100 -> 96
data.augment.crop_padding=reflect data.augment.crop=8 -> data.augment.crop
model=airbench -> data.image_size=8: height and width must be 25 or more for this network
data.train_size=97 -> data.train_size=97: choose 1
data.train_size=1000 -> data.train_size=1000: choose 1
trainer.device=cuda:99 -> trainer.device: cuda:99 is not available
trainer.device=gpu0 -> trainer.device: 'gpu0' is not a device
trainer.device=xla -> trainer.device
trainer.device=cpu trainer.precision=fp16 -> trainer.precision: fp16 is not supported on the CPU
trainer.device=cpu trainer.precision=tf32 -> trainer.precision: tf32 needs a CUDA device
init_from=nowhere -> init_from=nowhere: no such run folder
data=image_folder data.root=nowhere -> data.root=nowhere does not exist
data=image_folder data.root=file.txt -> data.root=file.txt is neither a folder nor, by its name, an archive
data=arrays data.file=file.txt -> data.file=file.txt: not a file of arrays: expected .npz
data=huggingface -> data=huggingface: needs either data.name=NAME of the hub or data.root=PATH
data=csv data.file=file.text -> data.file=file.text does not exist; did you mean file.txt?
data=cifar10 data.root=nowhere data.download=false -> nowhere
"""


def rows(table):
    """(what is typed, words) of each line."""
    return [tuple(line.split(" -> ", 1)) for line in table.splitlines() if line]
