"""An adapter from outside the package: LDMPipeline, an unconditional UNet2DModel on the latents of a VQModel.

Import this file before the teacher is loaded, or name its class as an entry point (docs/extending.md).
"""

import bootdiff


@bootdiff.register_adapter
class LatentUNet(bootdiff.Adapter):
    """What bootdiff must know of an LDMPipeline."""

    pipelines = ("LDMPipeline",)
    network_part, network_class = "unet", "UNet2DModel"
    latent = True
    usage = "pipe(num_inference_steps=1, generator=generator)"

    @property
    def shape(self):
        """Return (channels, height, width) of one latent."""
        return self.fields["in_channels"], self.fields["sample_size"], self.fields["sample_size"]

    def call(self, network, x, timestep, condition):
        """Return the network's raw output, (b, c, h, w)."""
        return network(x, timestep).sample

    def clocks(self, network):
        """Return the places where the network embeds its time; the target time is added there."""
        return [bootdiff.Clock(network.time_proj, network.time_embedding)]

    def decode(self, sample):
        """Return images in [−1, 1], made of latents (b, c, h, w)."""
        coder = self.parts.load("vqvae").to(sample.device)
        return coder.decode(sample / coder.config.scaling_factor).sample.float()
