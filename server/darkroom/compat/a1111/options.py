"""A1111's options and their defaults. Few have an effect here; the others are kept for a client."""

import json
from collections.abc import Mapping
from typing import Any

from darkroom.compat.a1111.fields import wrong
from darkroom.requests import OutputFormat

MODEL = "sd_model_checkpoint"
CLIP_SKIP = "CLIP_stop_at_last_layers"
FORMAT = "samples_format"
FORMATS = {"jpg": OutputFormat.JPEG, **{known.value: known for known in OutputFormat}}
USED = (MODEL, CLIP_SKIP, FORMAT)
MAX_NAME_CHARS = 100
MAX_BYTES = 65_536  # of all options of a client, as JSON

# By section of `modules/shared_options.py`, without those in USED. Grids are never made here.
DEFAULTS: Mapping[str, Any] = {
    # saving
    **dict.fromkeys(("samples_save", "save_images_add_number", "grid_save"), True),
    **dict.fromkeys(("grid_only_if_multiple", "enable_pnginfo", "export_for_4chan"), True),
    **dict.fromkeys(("use_original_name_batch", "save_selected_only"), True),
    **dict.fromkeys(("grid_extended_filename", "grid_prevent_empty_spots", "save_txt"), False),
    **dict.fromkeys(("save_images_before_face_restoration", "save_mask"), False),
    **dict.fromkeys(("save_images_before_highres_fix", "save_mask_composite"), False),
    **dict.fromkeys(("save_images_before_color_correction", "webp_lossless"), False),
    **dict.fromkeys(("use_upscaler_name_as_suffix", "save_init_img"), False),
    **dict.fromkeys(("clean_temp_dir_at_start", "save_incomplete_images"), False),
    **dict.fromkeys(("samples_filename_pattern", "grid_zip_filename_pattern", "font"), ""),
    "grid_format": "png",
    "n_rows": -1,
    "grid_text_active_color": "#000000",
    "grid_text_inactive_color": "#999999",
    "grid_background_color": "#ffffff",
    "jpeg_quality": 80,
    "img_downscale_threshold": 4.0,
    "target_side_length": 4000,
    "img_max_size_mp": 200,
    "temp_dir": "",
    # folders
    "outdir_samples": "",
    "outdir_txt2img_samples": "outputs/txt2img-images",
    "outdir_img2img_samples": "outputs/img2img-images",
    "outdir_extras_samples": "outputs/extras-images",
    "outdir_grids": "",
    "outdir_txt2img_grids": "outputs/txt2img-grids",
    "outdir_img2img_grids": "outputs/img2img-grids",
    "outdir_save": "log/images",
    "outdir_init_images": "outputs/init-images",
    "save_to_dirs": True,
    "grid_save_to_dirs": True,
    "use_save_to_dirs_for_ui": False,
    "directories_filename_pattern": "[date]",
    "directories_max_prompt_words": 8,
    # enlarging and faces
    "ESRGAN_tile": 192,
    "ESRGAN_tile_overlap": 8,
    "realesrgan_enabled_models": ["R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B"],
    "upscaler_for_img2img": None,
    "upscaling_max_images_in_cache": 5,
    "face_restoration": False,
    "face_restoration_model": "CodeFormer",
    "code_former_weight": 0.5,
    "face_restoration_unload": False,
    # the program
    "auto_launch_browser": "Local",
    "show_warnings": False,
    "show_gradio_deprecation_warnings": True,
    "memmon_poll_rate": 8,
    "samples_log_stdout": False,
    "multiple_tqdm": True,
    "print_hypernet_extra": False,
    "list_hidden_files": True,
    "disable_mmap_load_safetensors": False,
    "hide_ldm_prints": True,
    "api_enable_requests": False,  # addresses are never fetched
    "api_forbid_local_requests": True,
    "api_useragent": "",
    # models
    "sd_checkpoint_hash": "",
    "sd_checkpoints_limit": 1,
    "sd_checkpoints_keep_in_cpu": True,
    "sd_checkpoint_cache": 0,
    "sd_unet": "Automatic",
    "sd_vae": "Automatic",
    "sd_vae_checkpoint_cache": 0,
    "sd_vae_overrides_per_model_preferences": True,
    "auto_vae_precision": True,
    "sd_vae_encode_method": "Full",
    "sd_vae_decode_method": "Full",
    "sd_lora": "None",
    "sd_hypernetwork": "None",
    "enable_quantization": False,
    "enable_emphasis": True,
    "enable_batch_seeds": True,
    "comma_padding_backtrack": 20,
    "upcast_attn": False,
    "randn_source": "CPU",
    "tiling": False,
    "sdxl_crop_top": 0,
    "sdxl_crop_left": 0,
    "sdxl_refiner_low_aesthetic_score": 2.5,
    "sdxl_refiner_high_aesthetic_score": 6.0,
    # img2img
    "inpainting_mask_weight": 1.0,
    "initial_noise_multiplier": 1.0,
    "img2img_extra_noise": 0.0,
    "img2img_color_correction": False,
    "img2img_fix_steps": False,
    "img2img_background_color": "#ffffff",
    "img2img_editor_height": 720,
    "img2img_sketch_default_brush_color": "#ffffff",
    "img2img_inpaint_mask_brush_color": "#ffffff",
    "img2img_inpaint_sketch_default_brush_color": "#ffffff",
    "return_mask": False,
    "return_mask_composite": False,
    # speed and old pictures
    "cross_attention_optimization": "Automatic",
    "s_min_uncond": 0.0,
    "token_merging_ratio": 0.0,
    "token_merging_ratio_img2img": 0.0,
    "token_merging_ratio_hr": 0.0,
    "pad_cond_uncond": False,
    "persistent_cond_cache": True,
    "batch_cond_uncond": True,
    "use_old_emphasis_implementation": False,
    "use_old_karras_scheduler_sigmas": False,
    "no_dpmpp_sde_batch_determinism": False,
    "use_old_hires_fix_width_height": False,
    "dont_fix_second_order_samplers_schedule": False,
    "hires_fix_use_firstpass_conds": False,
    "use_old_scheduling": False,
    # the user interface
    "extra_networks_default_multiplier": 1.0,
    "extra_networks_add_text_separator": " ",
    "textual_inversion_add_hashes_to_infotext": True,
    "localization": "None",
    "gradio_theme": "Default",
    "return_grid": False,
    "do_not_show_images": False,
    "send_seed": True,
    "send_size": True,
    "js_modal_lightbox": True,
    "show_progress_in_title": True,
    "samplers_in_dropdown": True,
    "dimensions_and_batch_together": True,
    "quicksettings_list": ["sd_model_checkpoint"],
    "hidden_tabs": [],
    "disable_token_counters": False,
    "add_model_hash_to_info": True,
    "add_model_name_to_info": True,
    "add_user_name_to_info": False,
    "add_version_to_infotext": True,
    "disable_weights_auto_swap": True,
    "infotext_styles": "Apply if any",
    # previews
    "show_progressbar": True,
    "live_previews_enable": True,
    "live_previews_image_format": "png",
    "show_progress_grid": True,
    "show_progress_every_n_steps": 10,
    "show_progress_type": "Approx NN",
    "live_preview_allow_lowvram_full": False,
    "live_preview_content": "Prompt",
    "live_preview_refresh_period": 1000,
    "live_preview_fast_interrupt": False,
    # samplers
    "hide_samplers": [],
    "eta_ddim": 0.0,
    "eta_ancestral": 1.0,
    "ddim_discretize": "uniform",
    **dict.fromkeys(("s_churn", "s_tmin", "s_tmax", "sigma_min", "sigma_max", "rho"), 0.0),
    "s_noise": 1.0,
    "k_sched_type": "Automatic",
    "eta_noise_seed_delta": 0,
    "always_discard_next_to_last_sigma": False,
    "uni_pc_variant": "bh1",
    "uni_pc_skip_type": "time_uniform",
    "uni_pc_order": 3,
    "uni_pc_lower_order_final": True,
    "postprocessing_enable_in_main_ui": [],
    "postprocessing_operation_order": [],
    "disabled_extensions": [],
    "disable_all_extensions": "none",
    "restore_config_state_file": "",
}


def without_effect(given: Mapping[str, Any]) -> list[str]:
    """Names of the options that have no effect here, and ask for something else than the default.

    Each value that asks for nothing counts as the default too.
    """
    return [
        name
        for name, value in given.items()
        if name not in USED and value and value not in (DEFAULTS.get(name), "None", "Automatic")
    ]


def to_keep(given: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options that were sent, those to keep for a client: all without an effect here.

    None stands for one that has its default again.

    Args:
        given: the options that were sent.
        kept: those that are kept already.

    Raises:
        ProblemError: 422, they are too large in all.
    """
    changes = {
        name: None if value == DEFAULTS.get(name) else value
        for name, value in given.items()
        if name not in USED and len(name) <= MAX_NAME_CHARS
    }
    if len(json.dumps({**kept, **changes})) > MAX_BYTES:
        raise wrong(f"the options of a client may have {MAX_BYTES} bytes in all")
    return changes
