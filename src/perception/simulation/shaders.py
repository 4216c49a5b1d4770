# SPDX-License-Identifier: Apache-2.0
"""The programs of the renderer, OpenGL 3.3. Light comes with the vertices: software draws many pixels slowly."""

from __future__ import annotations

VERTEX_SHADER = """
#version 330
uniform mat4 world_to_clip;
uniform mat4 model_to_world;
uniform vec3 eye;
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_color;
in vec3 in_light_front;
in vec3 in_light_back;
in uint in_instance;
out vec2 uv;
out vec4 tint;
out vec3 light;
out float depth;
flat out uint instance;
void main() {
    vec4 position = model_to_world * vec4(in_position, 1.0);
    gl_Position = world_to_clip * position;
    uv = in_uv;
    tint = in_color;
    // Many models have faces that look away; every surface is drawn with both its sides.
    bool front = dot(mat3(model_to_world) * in_normal, eye - position.xyz) >= 0.0;
    light = front ? in_light_front : in_light_back;
    // The projection puts the distance along the optical axis here.
    depth = gl_Position.w;
    instance = in_instance;
}
"""

FRAGMENT_SHADER = """
#version 330
uniform sampler2D image;
in vec2 uv;
in vec4 tint;
in vec3 light;
in float depth;
flat in uint instance;
layout(location = 0) out vec4 out_color;
layout(location = 1) out uvec2 out_truth;
void main() {
    vec4 albedo = tint * texture(image, uv);
    // Holes in leaves, nets and lace are cut out; glass, transparent by its tint, is blended.
    if (albedo.a < 0.5 * tint.a) discard;
    // Squares and roots stand for the exponent 2.2 of sRGB, as they cost less; bright light saturates softly.
    vec3 radiance = albedo.rgb * albedo.rgb * light;
    out_color = vec4(sqrt(1.0 - exp(-1.25 * radiance)), tint.a);
    out_truth = uvec2(instance, floatBitsToUint(depth));
}
"""
