# SPDX-License-Identifier: Apache-2.0
"""The programs of the renderer, OpenGL 3.3."""

from __future__ import annotations

MAX_LIGHTS = 32

VERTEX_SHADER = """
#version 330
uniform mat4 world_to_clip;
uniform mat4 model_to_world;
in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_color;
in float in_emission;
in uint in_instance;
out vec3 world;
out vec3 normal;
out vec2 uv;
out vec4 tint;
out float depth;
flat out float emission;
flat out uint instance;
void main() {
    vec4 position = model_to_world * vec4(in_position, 1.0);
    gl_Position = world_to_clip * position;
    world = position.xyz;
    normal = mat3(model_to_world) * in_normal;
    uv = in_uv;
    tint = in_color;
    // The projection puts the distance along the optical axis here.
    depth = gl_Position.w;
    emission = in_emission;
    instance = in_instance;
}
"""

FRAGMENT_SHADER = """
#version 330
const int MAX_LIGHTS = @MAX_LIGHTS@;
uniform sampler2D image;
uniform vec3 eye;
uniform vec3 ambient;
uniform float ground_share;
uniform int lights;
uniform vec3 light_position[MAX_LIGHTS];
uniform vec3 light_color[MAX_LIGHTS];
uniform vec3 light_lower[MAX_LIGHTS];
uniform vec3 light_upper[MAX_LIGHTS];
uniform vec3 light_attenuation[MAX_LIGHTS];
in vec3 world;
in vec3 normal;
in vec2 uv;
in vec4 tint;
in float depth;
flat in float emission;
flat in uint instance;
layout(location = 0) out vec4 out_color;
layout(location = 1) out uvec2 out_truth;

// How open a point of a room is: corners and edges get less light from all around (stands in for ambient occlusion).
float openness(vec3 lower, vec3 upper) {
    vec3 gap = min(world - lower, upper - world);
    vec3 open = 1.0 - 0.38 * exp(-max(gap, 0.0) / 0.22);
    // The surface one stands on is no corner: the largest of the three losses does not count.
    float least = min(open.x, min(open.y, open.z));
    return open.x * open.y * open.z / least;
}

void main() {
    vec4 albedo = tint * texture(image, uv);
    // Holes in leaves, nets and lace are cut out; glass, transparent by its tint, is blended.
    if (albedo.a < 0.5 * tint.a) discard;
    vec3 n = normalize(normal);
    vec3 to_eye = normalize(eye - world);
    // Many models have faces that look away; every surface is drawn with both its sides.
    if (dot(n, to_eye) < 0.0) n = -n;
    vec3 light = ambient * mix(ground_share, 1.0, 0.5 * n.z + 0.5);
    float shine = 0.0;
    float open = 1.0;
    for (int i = 0; i < lights; ++i) {
        if (any(lessThan(world, light_lower[i])) || any(greaterThan(world, light_upper[i]))) continue;
        vec3 way = light_position[i] - world;
        float away = max(length(way), 1e-3);
        way /= away;
        vec3 arriving = light_color[i] / dot(light_attenuation[i], vec3(1.0, away, away * away));
        // What arrives from afar is too little to see.
        if (max(arriving.r, max(arriving.g, arriving.b)) < 0.015) continue;
        float facing = max(0.15 + 0.85 * dot(n, way), 0.0);
        light += arriving * facing;
        shine += max(arriving.r, arriving.g) * pow(max(dot(reflect(-way, n), to_eye), 0.0), 30.0);
        if (light_upper[i].x < 1e5) open = min(open, openness(light_lower[i], light_upper[i]));
    }
    vec3 linear = pow(albedo.rgb, vec3(2.2));
    vec3 radiance = linear * light * open + 0.10 * shine;
    radiance = mix(radiance, linear * 1.6, emission);
    vec3 exposed = 1.0 - exp(-1.25 * radiance);
    out_color = vec4(pow(exposed, vec3(1.0 / 2.2)), tint.a);
    out_truth = uvec2(instance, floatBitsToUint(depth));
}
""".replace("@MAX_LIGHTS@", str(MAX_LIGHTS))
