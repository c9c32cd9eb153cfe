. /work/trees/recipe/env.sh
while kill -0 12262 2>/dev/null; do sleep 1; done
G="nice -n 10 python benchmarks/grid.py ../lab /work/shared/data"
L="nice -n 10 python benchmarks/class_texts.py /work/shared/data ../lab"
$L --shots 3 --seeds 0,1,2,3,4,5,6,7 --controls shuffled,template,untrained --baselines zero-shot,mean-of-prompts > ../lab/lvis3.log 2>&1
cp ../lab/lvis_imagenet-base2new-3-default/results/classification.json ../lab/lvis3_8.json
$G --data imagenet --shots 1 --protocols fewshot --seeds 0 --baselines zero-shot,gda,lp++
$L --shots 3 --seeds 0,1,2,3,4 --controls shuffled,template,untrained --baselines fast,clip-adapter,tip-adapter-f,taskres,lp++,proker,gda,clap,staged > ../lab/lvis5.log 2>&1
cp ../lab/lvis_imagenet-base2new-3-default/results/classification.json ../lab/lvis3_5.json
$G --data pets --shots 2,8 --protocols base2new,fewshot --seeds 0,1 --baselines zero-shot,mean-of-prompts,gda,proker,lp++
$G --data imagenet --shots 1 --protocols base2new --seeds 0 --baselines zero-shot,gda,lp++
date
