"""The teacher's own features as a feature space, for samples that no published network knows."""

from __future__ import annotations

from torch import Tensor

from bootdiff.core.errors import BootdiffError
from bootdiff.teachers import Teacher, adapter_of, blank_condition
from bootdiff.teachers.features import TeacherFeatures
from bootdiff.teachers.loading.weights import weights_hash


class TeacherSpace:
    """The activations in the middle of a teacher's network, which is shown every image at its smallest time.

    A teacher with a condition is told zeros in its place.

    Raises:
        BootdiffError: if the teacher makes latents, which images are not, or has no network that can be shown an image
            alone.
    """

    knows_labels = False
    #: whether arrays that are no pictures may be shown to it
    takes_any_shape = True
    #: whether its name says all that it depends on; here its schedule and its code are not in it
    lasting = False

    def __init__(self, teacher: Teacher) -> None:
        adapter = adapter_of(teacher)
        if adapter is not None and (adapter.latent or adapter.upscales):
            raise BootdiffError(
                f"--features teacher: {teacher.name} does not read images alone, so it cannot judge them; name another "
                "feature space."
            )
        try:
            self.read_features = TeacherFeatures.of_any(teacher, teacher.t_range[0])
        except BootdiffError as error:
            raise BootdiffError(f"--features teacher: {error} Name another feature space.") from error
        self.teacher = teacher
        self.shape = tuple(teacher.shape)
        self.name = f"teacher-{weights_hash(teacher.denoiser)}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images (b, *shape), (b, d) in float32."""
        self.teacher.to(images.device)
        return self.read_features.read(images, blank_condition(self.teacher, len(images), images.device))

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features (b, d), and None, because a denoiser gives no logits."""
        return self(images), None
