// pmetal quickstart: from nothing to a fine-tuned language model that answers, with no network and no file of anyone's.
#include "jobs/quickstart.h"
#include "jobs/spec.h"

namespace pmetal::jobs {

void run_quickstart(const JobOptions& options, JobContext& job) {
  const QuickstartOptions& o = options.as<QuickstartOptions>();
  if (o.recipe != Recipe::kAuto) {
    quickstart(o, recipe_of(o.recipe), job);
    return;
  }
  constexpr double kSeconds = 1;
  Context ctx(std::make_shared<ThreadPool>(static_cast<int>(o.threads)));
  const double gflops = measure_gflops(ctx, kSeconds);
  const RecipeSpec& recipe = recipe_for_speed(gflops);
  job.log(LogLevel::kInfo, "speed test: {:.0f} GFLOP/s in bf16; recipe \"{}\"", gflops, recipe.name);
  quickstart(o, recipe, job);
}

}  // namespace pmetal::jobs
